"""`python -m cvae.evaluate` on runs that the real command has trained."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from cvae import evaluate as evaluate_module
from cvae import export as export_module
from cvae import visualize as visualize_module
from cvae.build import build
from cvae.data.source import Arrays
from cvae.errors import UserError
from cvae.evaluation.latents import latents
from cvae.evaluation.report import table
from cvae.files import written
from cvae.run import Run
from folders import names
from short_judge import BEFORE, short_judge_of
from warm import Command, Warm

Evaluate = Callable[..., Command]


@pytest.fixture(scope="module")
def evaluate(warm: Warm, judged: Path) -> Evaluate:
    def run(*arguments: str | Path) -> Command:
        return warm.start("cvae.evaluate", *map(str, arguments), before=BEFORE, cwd=judged).wait()

    return run


@pytest.fixture(scope="module", name="reference")
def small(reference: Callable[..., Path]) -> Callable[..., Path]:
    """With few latent dimensions: what is measured for each takes time."""

    def trained(*overrides: str) -> Path:
        size = () if "model=deterministic" in overrides else ("model.latent_dim=4",)
        return reference(*size, *overrides)

    return trained


@pytest.fixture(scope="module")
def evaluated(
    evaluate: Evaluate, reference: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(reference(), folder)
    command = evaluate(folder, "--num-samples", "20")
    assert command.status == 0, command.output
    assert "training a judge" not in command.output
    return folder, command.output


def _results(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return results


def _measured(run: Run) -> object:
    return evaluate_module.evaluate(run, 10, 0, torch.device("cpu"))


def test_the_numbers_agree_with_each_other(evaluated: tuple[Path, str]) -> None:
    found = _results(evaluated[0])
    elbo, nll = found["elbo"], found["nll"]["importance"]
    assert found["examples"] == 10_000
    assert elbo["mean"] == pytest.approx(found["reconstruction"]["mean"] - found["kl"]["mean"])
    assert nll["mean"] < nll["mean_of_repeats"] < -elbo["mean"]  # a bound rises with K
    assert nll["mean"] < found["nll"]["prior"]["mean"]  # z from the prior rarely explain y
    assert found["reconstruction_from_prior"]["mean"] < found["reconstruction"]["mean"]
    assert 0 < nll["monte_carlo_error"] < nll["standard_error"]
    latent = found["latent"]
    assert sum(latent["kl_per_dimension"]) == pytest.approx(found["kl"]["mean"], rel=1e-5)
    aggregate = latent["aggregate_kl"]  # the mixtures' is smaller
    assert aggregate["mean"] < found["kl"]["mean"] + 4 * aggregate["monte_carlo_error"]


def test_the_kl_is_that_of_the_final_test(evaluated: tuple[Path, str], arrays: Arrays) -> None:
    run = Run(evaluated[0])
    data = build(run.config["data"], "data")
    data.setup()
    test = data.examples("test")
    use = latents(run.load_model(), test.x[:1000], test.y[:1000])  # as many as a tiny run's test
    metrics = json.loads(run.metrics.read_text())
    assert metrics["test/examples"] == 1000
    assert use.kl_per_dimension.sum(1).mean().item() == pytest.approx(metrics["test/kl"], rel=1e-5)
    assert torch.equal(test.labels, arrays.test_labels.long())


def test_validation_data_are_measured_apart_and_forgotten_with_the_rest(
    evaluated: tuple[Path, str],
    evaluate: Evaluate,
    reference: Callable[..., Path],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(evaluated[0], folder)
    before = (folder / "evaluation.json").read_bytes()
    command = evaluate(folder, "--num-samples", "10", "--split", "val")
    assert command.status == 0, command.output
    found = json.loads((folder / "evaluation_val.json").read_text())
    assert (found["split"], found["examples"]) == ("val", 10_000)
    assert found["kl"]["mean"] != _results(folder)["kl"]["mean"]
    assert found.keys() == _results(folder).keys() - {"judge"}
    assert "the judge's numbers (it was trained on the validation images)" in command.output
    assert (folder / "evaluation.json").read_bytes() == before
    assert (folder / "pictures_val" / "kl.png").is_file()
    Run(folder).forget()
    assert names(folder) == names(reference())


def test_a_run_that_cannot_be_evaluated_leaves_the_others_their_turn(
    evaluated: tuple[Path, str], evaluate: Evaluate, tmp_path: Path
) -> None:
    for name in ("0", "1"):
        shutil.copytree(evaluated[0], tmp_path / name)
        (tmp_path / name / "evaluation.json").unlink()
    shutil.rmtree(tmp_path / "0" / "checkpoints")
    command = evaluate(tmp_path, "--num-samples", "10")
    assert command.status == 1
    assert "does not exist: has the run been trained?" in command.output
    assert not (tmp_path / "0" / "evaluation.json").exists()
    assert (tmp_path / "1" / "evaluation.json").exists()


def test_numbers_of_earlier_weights_do_not_outlive_them(
    evaluated: tuple[Path, str], resume: Callable[..., Command], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(evaluated[0], folder)
    assert resume(folder, "trainer.max_epochs=4").status == 0
    assert (folder / "metrics.json").exists()
    assert not (folder / "evaluation.json").exists()


def _times(folder: Path) -> dict[Path, int | None]:
    """When each file was written."""
    return {path: written(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("module", "replaced", "work"),
    [
        (evaluate_module, ("bounds", "drawn"), _measured),
        (visualize_module, ("drawn",), lambda run: visualize_module.visualize(run, seed=0)),
        (export_module, ("_forms",), export_module.export),
    ],
)
def test_of_a_run_that_trains_meanwhile_nothing_is_written(
    module: ModuleType,
    replaced: Sequence[str],
    work: Callable[[Run], object],
    reference: Callable[..., Path],
    judged: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(reference(), folder)
    before = _times(folder)

    def made_while_it_trains(*_: object) -> dict[str, Any]:
        (folder / "checkpoints" / "best.ckpt").touch()
        return {}

    monkeypatch.chdir(judged)
    monkeypatch.setattr(export_module, "judge_of", short_judge_of)
    for name in replaced:
        monkeypatch.setattr(module, name, made_while_it_trains)
    with pytest.raises(UserError, match="was trained on meanwhile: run this again when it has"):
        work(Run(folder))
    assert {path for path, time in _times(folder).items() if before.get(path) != time} == {
        folder / "checkpoints" / "best.ckpt"
    }


def test_a_table_and_pictures_are_shown(evaluated: tuple[Path, str]) -> None:
    folder, output = evaluated
    found = _results(folder)
    for name in ("elbo", "reconstruction", "kl"):
        assert f"{found[name]['mean']:.2f} ± {found[name]['standard_error']:.2f}" in output
    assert f"{found['nll']['importance']['mean']:.2f} ±" in output
    assert "K=20" in output
    assert "log-probability of 0/1 pixels" in output
    judge = found["judge"]
    for share in (judge, min(judge["per_digit"].values(), key=lambda of: of["accuracy"])):
        assert f"{share['accuracy']:.2%} ± {share['accuracy_standard_error']:.2%}" in output
    assert f"train against test {judge['frechet_of_train']:.3f}" in output
    for name in ("kl", "aggregate", "posterior_and_prior"):
        assert (folder / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("rise", "said"),
    [
        (0.25, "Monte Carlo error 0.123;"),
        (0.5, "Monte Carlo error 0.123;"),
        (0.75, "not converged;"),
    ],
)
def test_an_estimate_that_ten_times_the_samples_move_by_more_than_half_a_nat_has_no_error(
    evaluated: tuple[Path, str], rise: float, said: str
) -> None:
    results = _results(evaluated[0])
    estimate = {"mean": 100.0, "mean_of_repeats": 100 + rise, "monte_carlo_error": 0.123}
    results["nll"]["prior"] |= estimate
    (line,) = (line for line in table(results).splitlines() if "z from p(z|x), K=" in line)
    assert said in line


def test_a_folder_of_folders_and_the_same_seed_give_the_same_numbers_twice(
    evaluated: tuple[Path, str], evaluate: Evaluate, tmp_path: Path
) -> None:
    before = _results(evaluated[0])
    for name in ("0", "1"):
        shutil.copytree(evaluated[0], tmp_path / name)
    command = evaluate(tmp_path, "--num-samples", "20")
    assert command.status == 0, command.output
    for name in ("0", "1"):
        again = _results(tmp_path / name)
        assert {**again, "speed": 0} == {**before, "speed": 0}
    assert evaluate(tmp_path / "1", "--num-samples", "20", "--seed", "1").status == 0
    other = _results(tmp_path / "1")
    assert other["nll"]["importance"]["mean"] != before["nll"]["importance"]["mean"]
    assert other["kl"] == before["kl"]  # in closed form


def test_a_model_that_ignores_x_is_right_by_chance(
    evaluate: Evaluate, reference: Callable[..., Path]
) -> None:
    folder = reference("model=vae")
    assert evaluate(folder, "--num-samples", "10").status == 0
    found = _results(folder)
    # between the shares of the rarest and of the commonest digit, with a standard error of 0.003
    assert 0.0892 - 0.012 < found["judge"]["accuracy"] < 0.1135 + 0.012
    assert set(found["judge"]["per_digit"]) == {str(digit) for digit in range(10)}


def test_other_data_than_those_of_the_training_are_refused(
    evaluated: tuple[Path, str], evaluate: Evaluate, mnist_root: str, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(mnist_root, moved)
    shutil.copytree(evaluated[0], tmp_path / "run")
    command = evaluate(tmp_path / "run", "--num-samples", "10", "--data-root", moved)
    assert command.status == 0, command.output
    assert _results(tmp_path / "run")["data"]["folder"] == str(moved)
    labels = moved / "t10k-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[-1] ^= 1
    labels.write_bytes(content)
    command = evaluate(tmp_path / "run", "--num-samples", "10", "--data-root", moved)
    assert command.status == 1
    assert "t10k-labels-idx1-ubyte" in command.output


def test_grey_densities_convolutions_and_runs_without_validation_are_measured(
    evaluate: Evaluate, reference: Callable[..., Path]
) -> None:
    folder = reference("network=conv", "likelihood=gaussian", "data.split=full")
    command = evaluate(folder, "--num-samples", "10")
    assert command.status == 0, command.output
    assert "log-density of grey pixels" in command.output
    found = _results(folder)
    assert found["nll"]["importance"]["mean"] < -found["elbo"]["mean"]
    command = evaluate(folder, "--num-samples", "10", "--split", "val")
    assert command.status == 1
    assert "has no validation data: there is no --split val" in command.output


def test_a_network_without_z_has_its_likelihood_for_an_estimate(
    evaluate: Evaluate, reference: Callable[..., Path]
) -> None:
    folder = reference("data=quadrants", "model=deterministic")
    command = evaluate(folder, "--num-samples", "10")
    assert command.status == 0, command.output
    found = _results(folder)
    for estimate in found["nll"].values():
        # float32 densities of some hundred nats, summed in another order
        assert estimate["mean"] == pytest.approx(-found["elbo"]["mean"], rel=1e-6)
        assert estimate["monte_carlo_error"] == pytest.approx(0, abs=1e-6)
    assert found["latent"]["active_units"] == 0
    # its pictures hold x of the very images they are compared with: no real ones are as near
    assert "frechet_of_train" not in found["judge"]
    assert "train against test" not in command.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere is not a run's folder"),
        (["FOLDER", "--num-samples", "15"], "--num-samples 15: give 10 or a multiple of it"),
        (["FOLDER", "--num-samples", "0"], "give 10 or a multiple of it"),
        (["FOLDER", "--device", "nothing"], "--device nothing"),
        (["FOLDER", "--device", "meta"], "neither cpu nor cuda"),
        (["latest"], "no run with a checkpoint"),
    ],
)
def test_a_mistake_ends_with_one_line(
    arguments: list[str],
    said: str,
    evaluate: Evaluate,
    reference: Callable[..., Path],
) -> None:
    folder = str(reference())
    command = evaluate(*(folder if word == "FOLDER" else word for word in arguments))
    assert command.status == 1
    assert said in command.error
