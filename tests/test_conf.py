"""Every file in conf/ composes, and every sensible composition of them trains."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cvae.build import build, check_targets
from cvae.data.annotators import Annotators
from cvae.errors import UserError
from cvae.run import Run
from cvae.train import CONF
from cvae.training.fit import fit

Compose = Callable[..., dict[str, Any]]
CHOICES = sorted(
    (path.parent.relative_to(CONF).as_posix(), path.stem)
    for path in CONF.rglob("*.yaml")
    if path.parent != CONF
)
NETWORKS = ("mlp", "conv")
LIKELIHOODS = ("bernoulli", "continuous_bernoulli", "gaussian")
MODELS = (
    ("vae", "fixed"),
    ("cvae_fixed_prior", "fixed"),
    ("cvae_fixed_prior", "learned"),
    ("cvae_learned_prior", "fixed"),
    ("cvae_learned_prior", "learned"),
    ("cvae_learned_prior", "mixture"),
    ("gsnn", "learned"),
    ("gsnn", "fixed"),
    ("deterministic", "fixed"),
)
GUESS = "model.guess=true"
TWO_STEPS = (
    "experiment=smoke",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "trainer.enable_progress_bar=false",
)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_file_composes_and_names_only_listed_targets(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, group: str, choice: str
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    config = compose(f"{group}={choice}")
    check_targets(config, "config")
    assert not [key for key, value in config.items() if value == "???"]


def test_the_folders_tested_are_the_folders_there() -> None:
    def names(group: str) -> set[str]:
        return {path.stem for path in (CONF / group).glob("*.yaml")}

    assert names("network") == {*NETWORKS, "unet"}
    assert names("likelihood") == set(LIKELIHOODS)
    assert names("model") == {"probabilistic_unet", *(model for model, _ in MODELS)}
    assert names("prior") == {prior for _, prior in MODELS}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(("model", "prior"), MODELS)
def test_every_sensible_composition_trains_saves_and_loads(
    compose: Compose,
    tmp_path: Path,
    mnist_root: str,
    model: str,
    prior: str,
    likelihood: str,
    network: str,
) -> None:
    config = compose(
        *TWO_STEPS,
        f"model={model}",
        f"prior={prior}",
        f"likelihood={likelihood}",
        f"network={network}",
        f"data.root={mnist_root}",
    )
    run = Run(tmp_path, config)
    run.begin()
    torch.manual_seed(config["seed"])
    initial = run.build_model().state_dict()
    results = fit(run)
    assert results["steps"] == 2
    assert results["test/elbo"] == pytest.approx(
        results["test/reconstruction"] - results["test/kl"], abs=1e-3
    )
    trained = run.load_model().state_dict()
    assert trained.keys() == initial.keys()
    for name, weights in initial.items():
        assert not torch.equal(trained[name], weights), name
        # an Adam step moves a weight by the learning rate or less, whatever the gradient
        assert (trained[name] - weights).abs().max() <= 2.1 * config["optimizer"]["lr"], name


# x, the truth, a guess or none, ten samples, their mean and deviation, or where there is no z one
ROWS = {GUESS: 15, "model=deterministic": 3}


@pytest.mark.parametrize("word", [*sorted({f"model={model}" for model, _ in MODELS}), GUESS])
def test_every_model_completes_quadrants(
    compose: Compose, tmp_path: Path, mnist_root: str, word: str
) -> None:
    root = f"data.root={mnist_root}"
    run = Run(tmp_path, compose(*TWO_STEPS, "data=quadrants", "data.observed=3", word, root))
    run.begin()
    # two steps from an untrained net's 196 log 2 = 136 nats
    assert -145 < fit(run)["test/elbo"] < -130
    rows = ROWS.get(word, 14)
    with Image.open(tmp_path / "pictures" / "samples.png") as picture:
        assert picture.height == 2 * (rows * (28 + 2) + 2)


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Annotators who draw the first digits of each split alone, not seventy thousand."""
    whole = Annotators._split
    monkeypatch.setattr(
        Annotators, "_split", lambda self, digits, place: whole(self, digits[:200], place)
    )


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(
    "words",
    [
        ["model=probabilistic_unet", "prior=fixed", "data.style=by_slant"],
        ["model=deterministic", "network=unet", "data.annotators=[faithful]"],
        ["network=conv", "likelihood=gaussian", "model.latent_dim=1"],
    ],
)
def test_models_of_annotators(
    compose: Compose, tmp_path: Path, mnist_root: str, words: list[str]
) -> None:
    small = ("network.hidden=[8]", f"data.root={mnist_root}")
    run = Run(tmp_path, compose(*TWO_STEPS, "data=annotators", *words, *small))
    run.begin()
    results = fit(run)
    assert results["steps"] == 2
    assert "likelihood=gaussian" in words or results["density"].endswith("of 0/1 pixels")
    assert (tmp_path / "pictures" / "samples.png").is_file()


def test_a_first_guess_from_a_folder_stays_as_it_was_trained_there(
    compose: Compose, tmp_path: Path, mnist_root: str
) -> None:
    words = (*TWO_STEPS, "data=quadrants", f"data.root={mnist_root}")
    answer = Run(tmp_path / "answer", compose(*words, "model=deterministic"))
    answer.begin()
    fit(answer)
    run = Run(tmp_path / "run", compose(*words, f"model.guess={answer.folder}"))
    run.begin()
    fit(run)
    given = answer.load_model().decoder.density.state_dict()
    shutil.rmtree(answer.folder)  # a run's folder needs no other
    longer = run.changed(["trainer.max_epochs=2"])
    assert fit(longer)["steps"] == 4
    guess = longer.load_model().first_guess
    assert guess is not None
    for name, weights in guess.state_dict().items():
        assert torch.equal(weights, given[name])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (["model=deterministic", "network.hidden=[8]"], "is a run with another network"),
        (["model=deterministic", "data.observed=2"], "is a run with another data.view"),
        (["model=deterministic", "data.split=full"], "is a run with another data.split"),
        (["model=gsnn"], "is not a run of model=deterministic"),
        (["model=deterministic", "trainer.max_epochs=0"], "has not come to its end"),
    ],
)
def test_a_first_guess_of_anything_else_is_refused(
    compose: Compose, tmp_path: Path, mnist_root: str, answer: list[str], said: str
) -> None:
    words = (*TWO_STEPS, "data=quadrants", f"data.root={mnist_root}")
    first = Run(tmp_path / "answer", compose(*words, *answer))
    first.begin()
    with suppress(UserError):  # nothing was trained
        fit(first)
    run = Run(tmp_path / "run", compose(*words, f"model.guess={first.folder}"))
    run.begin()
    with pytest.raises(UserError, match=said):
        fit(run)


def test_a_shorthand_is_in_the_run_where_it_belongs_and_nowhere_else(compose: Compose) -> None:
    data = compose("data=quadrants", "data.observed=2")["data"]
    assert data["view"] == {"_target_": "cvae.data.views.Quadrants", "observed": 2}
    assert not {"observed", "_shorthand_"} & data.keys()


def choices(group: str) -> list[str]:
    return sorted(choice for folder, choice in CHOICES if folder == group)


@pytest.mark.parametrize("choice", choices("objective"))
def test_every_objective_trains_and_is_judged_by_its_own_number(
    compose: Compose, tmp_path: Path, mnist_root: str, choice: str
) -> None:
    run = Run(tmp_path, compose(*TWO_STEPS, f"objective={choice}", f"data.root={mnist_root}"))
    run.begin()
    results = fit(run)
    objective = build(run.config["objective"], "objective")
    assert results["steps"] == 2
    assert {f"test/{term}" for term in objective.terms} <= results.keys()
    assert results["best"] == pytest.approx(results[f"val/{objective.monitor}"])


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("choice", sorted(set(choices("experiment")) - {"smoke"}))
def test_every_experiment_trains(
    compose: Compose, tmp_path: Path, mnist_root: str, choice: str
) -> None:
    smoke = TWO_STEPS[0].replace("=smoke", f"=[{choice},smoke]")
    config = compose(smoke, *TWO_STEPS[1:], f"data.root={mnist_root}")
    if "warmup_epochs" in config["objective"]:
        config["objective"]["warmup_epochs"] = 0.0  # two steps of what comes after
    run = Run(tmp_path, config)
    run.begin()
    assert fit(run)["steps"] == 2


@pytest.mark.parametrize("choice", choices("objective"))
def test_an_experiment_takes_another_objective(compose: Compose, choice: str) -> None:
    expected = compose(f"objective={choice}")["objective"]
    words = ("experiment=annotators", f"objective={choice}")
    assert compose(*words)["objective"] == expected
    words = ("experiment=label_conditional", f"objective={choice}", "~objective.warmup_epochs")
    expected.pop("warmup_epochs", None)
    assert compose(*words)["objective"] == expected


def test_of_two_experiments_the_later_decides(compose: Compose) -> None:
    config = compose("experiment=[annotators,smoke]")
    assert config["network"]["_target_"] == "cvae.networks.UNet"
    assert (config["trainer"]["max_epochs"], config["data"]["batch_size"]) == (1, 64)


@pytest.mark.parametrize(
    ("overrides", "prior"),
    [
        (["model=cvae_learned_prior"], "learned_prior"),
        (["model=cvae_learned_prior", "prior=fixed"], "fixed_prior"),
        (["prior=learned", "model=cvae_fixed_prior"], "learned_prior"),
        (["experiment=blog_cvae"], "fixed_prior"),
        (["experiment=blog_cvae", "prior=learned"], "learned_prior"),
        (["experiment=tutorial_cvae"], "learned_prior"),
    ],
)
def test_the_prior_is_one_word_and_the_command_line_wins(
    compose: Compose, overrides: list[str], prior: str
) -> None:
    assert compose(*overrides)["prior"]["_target_"] == f"cvae.models.{prior}"


@pytest.mark.parametrize("prior", ["fixed", "learned"])
@pytest.mark.parametrize("network", ["mlp", "conv", "unet"])
def test_the_probabilistic_unet_is_a_model_a_prior_and_a_network(
    compose: Compose, network: str, prior: str
) -> None:
    parts = "network", "prior", "model"
    config = compose("model=probabilistic_unet")
    words = ["network=unet", "prior=learned", "model=cvae_fixed_prior", "model.latent_dim=6"]
    assert [config[part] for part in parts] == [compose(*words)[part] for part in parts]

    words = [f"network={network}", f"prior={prior}"]
    config = compose(*words, "model=probabilistic_unet")
    expected = compose(*words)
    assert [config[part] for part in parts[:2]] == [expected[part] for part in parts[:2]]


@pytest.mark.parametrize(
    ("overrides", "binarize"),
    [
        (["likelihood=bernoulli"], "dynamic"),
        (["likelihood=gaussian"], "none"),
        (["likelihood=continuous_bernoulli"], "none"),
        (["likelihood=gaussian", "data.binarize=static"], "static"),
        (["experiment=blog_vae"], "none"),
        (["likelihood=gaussian", "data=quadrants"], "none"),
        (["likelihood=gaussian", "experiment=pythae_vae"], "static"),
    ],
)
def test_the_likelihood_says_what_pixels_it_is_for(
    compose: Compose, overrides: list[str], binarize: str
) -> None:
    config = compose(*overrides)
    assert config["data"]["binarize"] == binarize
    assert not {"pixels", "_shorthand_"} & config["likelihood"].keys()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("data", ["annotators", "references"])
def test_masks_have_no_pixels_to_binarise(compose: Compose, data: str, likelihood: str) -> None:
    assert "binarize" not in compose(f"data={data}", f"likelihood={likelihood}")["data"]
