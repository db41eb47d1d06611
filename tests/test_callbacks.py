"""What callbacks do during a real, tiny training."""

import csv
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from cvae.build import build
from cvae.data.module import ImageData
from cvae.errors import UserError
from cvae.evaluation.latents import latents
from cvae.noise import Stream, generator
from cvae.objectives import BetaElbo, Iwae, Terms
from cvae.run import Run
from cvae.training.callbacks import Lines, Pictures
from cvae.training.fit import fit
from cvae.training.schedules import Constant
from folders import results, step

Train = Callable[..., dict[str, Any]]
NUMBER = r"-?\d[\d.]*(e-?\d+)?"
FROZEN = ("optimizer.lr=0.0", "schedule=constant")  # nothing ever improves
CONSTANT = {"_target_": "cvae.training.schedules.Constant"}
PATIENT = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1")


@pytest.fixture
def trained(compose: Callable[..., dict[str, Any]], tmp_path: Path, mnist_root: str) -> Train:
    """Trains five steps an epoch in `tmp_path` and gives the results."""

    def run(*overrides: str) -> dict[str, Any]:
        config = compose(
            "experiment=smoke",
            "trainer.limit_train_batches=5",
            "trainer.limit_val_batches=1",
            "trainer.limit_test_batches=1",
            "trainer.enable_progress_bar=false",
            f"data.root={mnist_root}",
            *overrides,
        )
        new = Run(tmp_path, config)
        new.begin()
        return fit(new)

    return run


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_size_of_a_batch_can_be_left_to_the_data(
    trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageData.__init__, "__defaults__", (50, "standard", 0, None))
    assert trained("~data.batch_size")["steps"] == 5


def test_early_stopping_stops_what_does_not_improve(trained: Train) -> None:
    assert trained(*PATIENT, *FROZEN, "trainer.max_epochs=9")["epochs"] == 2


def test_early_stopping_waits_until_the_warm_up_has_ended(trained: Train) -> None:
    overrides = (*PATIENT, *FROZEN, "trainer.max_epochs=9", "objective.warmup_epochs=3")
    assert trained(*overrides)["epochs"] == 4


def test_early_stopping_needs_validation_data(trained: Train) -> None:
    with pytest.raises(UserError, match=r"needs validation data"):
        trained(*PATIENT, "data.split=full")


def test_an_epoch_without_validation_has_an_empty_place_in_its_row(
    trained: Train, tmp_path: Path
) -> None:
    results = trained("trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2")
    assert [bool(row["val/elbo"]) for row in rows(tmp_path)] == [False, True, False, True]
    assert results["best_epoch"] in (2, 4)


def test_what_another_callback_logs_of_validation_has_a_column(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log_in_the_second_epoch(self: Pictures, trainer: Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            self.log("val/mine", 7.0)

    monkeypatch.setattr(Pictures, "on_validation_epoch_end", log_in_the_second_epoch)
    trained("trainer.max_epochs=3")
    assert [row["val/mine"] for row in rows(tmp_path)] == ["", "7.0", ""]
    names = [name for name in rows(tmp_path)[0] if name.endswith(("step", "elbo", "mine"))]
    assert names == ["step", "train/elbo", "val/elbo", "val/mine"]


def test_without_validation_the_best_weights_are_the_last(trained: Train, tmp_path: Path) -> None:
    results = trained("trainer.max_epochs=2", "data.split=full")
    assert not [name for name in results if name.startswith("val/")]
    assert results["best"] is None
    assert Run(tmp_path).weights == results["weights"] == "last"
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"last.ckpt"}


def test_the_warm_up_is_in_the_loss_and_not_in_the_elbo(trained: Train, tmp_path: Path) -> None:
    trained("objective.warmup_epochs=1", "trainer.max_epochs=1")
    (row,) = rows(tmp_path)
    terms = {name: float(value) for name, value in row.items() if value}
    assert terms["train/elbo"] == pytest.approx(
        terms["train/reconstruction"] - terms["train/kl"], abs=1e-3
    )
    assert terms["train/loss"] < -terms["train/elbo"] - 1e-3  # β was below 1 throughout


def test_validation_has_all_samples_in_the_warm_up_too(trained: Train, tmp_path: Path) -> None:
    few = ("objective.num_samples=3", "objective.num_backward=1", "objective.warmup_epochs=2")
    trained("objective=iwae", *few, "trainer.max_epochs=3", *FROZEN)
    found = [float(row["val/iwae"]) for row in rows(tmp_path)]
    assert found == [found[0]] * 3  # nothing was learned
    assert found[0] > float(rows(tmp_path)[0]["val/elbo"]) + 0.01


def test_a_warm_up_draws_the_noise_of_one_sample(
    trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Iwae.__call__
    counts: list[int] = []

    def noted(self: Iwae, model: Any, x: Any, y: Any, noise: Any, epoch: float) -> Terms:
        if torch.is_grad_enabled():
            counts.append(len(noise))
        return call(self, model, x, y, noise, epoch)

    monkeypatch.setattr(Iwae, "__call__", noted)
    few = ("objective.num_samples=3", "objective.num_backward=1", "objective.warmup_epochs=1")
    trained("objective=iwae", *few, "trainer.max_epochs=2")
    assert counts == [1] * 5 + [4] * 5


def test_each_step_has_noise_of_its_own_and_a_row_the_mean_over_its_steps(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = BetaElbo.__call__
    noises: list[torch.Tensor] = []
    steps: list[dict[str, float]] = []

    def noted(self: BetaElbo, model: Any, x: Any, y: Any, noise: Any, epoch: float) -> Terms:
        terms = call(self, model, x, y, noise, epoch)
        if torch.is_grad_enabled():  # not in validation and test
            values = terms.by_name().items()
            noises.append(noise.clone())
            steps.append({name: value.detach().double().mean().item() for name, value in values})
        return terms

    monkeypatch.setattr(BetaElbo, "__call__", noted)
    latent_dim = trained("seed=3", "trainer.max_epochs=2")["latent_dim"]
    assert len(noises) == 10
    for index, noise in enumerate(noises):
        draws = generator(Stream.LATENT, 3, index)
        drawn = torch.randn((64, 1, latent_dim), generator=draws)
        assert torch.equal(noise, drawn.transpose(0, 1)), index
    for row, of_epoch in zip(rows(tmp_path), (steps[:5], steps[5:]), strict=True):
        for name in of_epoch[0]:
            mean = sum(terms[name] for terms in of_epoch) / 5
            # float32 means over 64 examples
            assert float(row[f"train/{name}"]) == pytest.approx(mean, rel=1e-6), name


def test_weights_that_became_worse_are_not_the_best_and_not_tested(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second epoch climbs the loss that the first has descended."""
    monkeypatch.setattr(Constant, "__call__", lambda _, done: 1.0 if done <= 0.5 else -1.0)
    found = trained("schedule=constant", "trainer.max_epochs=2")
    first, second = (float(row["val/elbo"]) for row in rows(tmp_path))
    assert second < first
    assert (found["best"], found["best_epoch"], found["val/elbo"]) == (first, 1, first)
    assert found["weights"] == "best"
    assert (step(tmp_path, "best"), step(tmp_path, "last")) == (5, 10)
    assert found["test/kl"] == pytest.approx(closed_form_kl(tmp_path, "best"), rel=1e-5)
    assert found["test/kl"] != pytest.approx(closed_form_kl(tmp_path, "last"), rel=0.01)


def closed_form_kl(folder: Path, weights: str) -> float:
    """Of the images that a tiny run is tested on."""
    run = Run(folder)
    data = build(run.config["data"], "data")
    data.setup()
    test = data.examples("test")
    count = int(results(folder)["test/examples"])
    use = latents(run.load_model(weights), test.x[:count], test.y[:count])
    return use.kl_per_dimension.sum(1).mean().item()


def test_the_decoder_starts_at_the_mean_of_the_training_data(
    trained: Train, tmp_path: Path, mnist_root: str
) -> None:
    trained("callbacks=start_at_mean", *FROZEN)
    *_, bias = Run(tmp_path).load_model().decoder.parameters()
    data = build(Run(tmp_path).config["data"], "data")
    data.setup()
    torch.testing.assert_close(bias.sigmoid(), data.mean().clamp(1e-3, 1 - 1e-3).flatten())


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.max_steps=3"],
        ["trainer.limit_val_batches=0"],
        ["trainer.check_val_every_n_epoch=5"],
    ],
)
def test_a_run_that_never_validated_tests_its_last_weights_and_says_so(
    trained: Train, caplog: pytest.LogCaptureFixture, overrides: list[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="cvae"):
        assert trained(*overrides)["weights"] == "last"
    assert "last weights" in caplog.text


@pytest.mark.parametrize(
    ("model", "scales"),
    [
        ("cvae_learned_prior", rf"of q\(z\|x,y\) {NUMBER}, of p\(z\|x\) {NUMBER}"),
        ("deterministic", "–"),
    ],
)
def test_a_run_that_diverges_says_so(
    trained: Train, monkeypatch: pytest.MonkeyPatch, model: str, scales: str
) -> None:
    """A loss and one of its terms, of one example in the third step of the second epoch."""
    call = BetaElbo.__call__

    def poisoned(self: BetaElbo, *arguments: Any) -> Terms:
        terms = call(self, *arguments)
        if arguments[-1] == 1 + 2 / 5:
            terms.elbo.kl[7], terms.loss[7] = torch.inf, torch.inf
        return terms

    monkeypatch.setattr(BetaElbo, "__call__", poisoned)
    line = f"diverged in epoch 2, step 8: kl, loss not finite; largest log-scale {scales}; "
    with pytest.raises(UserError, match=line):
        trained(f"model={model}", "trainer.max_epochs=2")


def test_a_run_without_a_step_is_refused(trained: Train) -> None:
    with pytest.raises(UserError, match="nothing was trained"):
        trained("trainer.max_epochs=0")


def test_weights_begin_with_the_seed_of_the_run(trained: Train, tmp_path: Path) -> None:
    trained(*FROZEN, "seed=3", "data.seed=5")
    torch.manual_seed(3)
    for name, weights in Run(tmp_path).build_model().named_parameters():
        assert weights.equal(dict(Run(tmp_path).load_model().named_parameters())[name]), name


@pytest.mark.parametrize(
    ("key", "node", "line"),
    [
        ("data", CONSTANT, "data is no InMemory"),
        ("objective", CONSTANT, "objective is no Objective"),
        ("schedule", {"_target_": "cvae.data.source.MNIST"}, "schedule is no Schedule"),
        ("callbacks", {"mine": CONSTANT}, r"callbacks\.mine is no Callback"),
    ],
)
def test_a_part_of_another_kind_is_named(
    compose: Callable[..., dict[str, Any]], tmp_path: Path, key: str, node: Any, line: str
) -> None:
    with pytest.raises(UserError, match=line):
        fit(Run(tmp_path, compose() | {key: node}))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_every_precision_trains(trained: Train, accelerator: str, precision: str) -> None:
    if accelerator == "gpu" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    if (accelerator, precision) == ("cpu", "16-mixed"):
        pytest.skip("float16 is for GPUs")
    results = trained(f"trainer.accelerator={accelerator}", f"trainer.precision={precision}")
    assert accelerator.replace("gpu", "cuda") in results["device"]
    # Five steps from an untrained net's 784 log 2 = 543 nats; a bfloat16 keeps three digits.
    assert -560 < results["test/elbo"] < -520


def test_a_line_tells_the_number_that_the_best_weights_are_chosen_by(
    caplog: pytest.LogCaptureFixture,
) -> None:
    row = {"epoch": 3, "train/elbo": -9.0, "train/iwae": -7.0}
    recorder: Any = SimpleNamespace(rows=[row])
    module = SimpleNamespace(objective=Iwae())
    trainer: Any = None
    with caplog.at_level("INFO"):
        Lines("cut", recorder).on_train_epoch_end(trainer, module)
        row |= {"val/elbo": -8.0, "val/iwae": -6.0}
        Lines("cut", recorder).on_train_epoch_end(trainer, module)
    assert caplog.messages == ["cut: epoch 3, train/iwae -7.00", "cut: epoch 3, val/iwae -6.00"]
