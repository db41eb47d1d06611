"""What one gets without z, beside a model's numbers."""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import FEW
from cvae.errors import UserError
from cvae.evaluation.baseline import gap_closed, read_baseline
from cvae.evaluation.references import NUM_MASKS
from cvae.run import Run
from warm import Warm


def beside(run: Run, baseline: Run) -> tuple[str, ...]:
    return str(run.folder), *FEW, "--baseline", str(baseline.folder)


def copy(run: Run, folder: Path) -> Run:
    return Run(shutil.copytree(run.folder, folder / "run"))


def test_a_model_stands_between_two_bounds(evaluated: dict[str, Any], without_z: Run) -> None:
    found = evaluated["references"]
    alone = json.loads(without_z.evaluation().read_text())["references"]
    for name, numbers in found["baseline"].items():
        assert numbers == (without_z.config["name"] if name == "name" else alone[name])
    # one answer for all, the first annotator's: 2 · ¼ · d − 2 · ¾ · ¼ · d, d = 1 − 16/25; another
    # answer than that is no more than 2 d(answer, theirs) away (the triangle inequality), and
    # d = 2 (1 − Dice) / (2 − Dice) < 2 (1 − Dice)
    dice = alone["majority_dice"]["mean"]
    assert dice > 0.999  # one pixel of 25 wrong, in a twentieth of the images
    assert alone["ged2"]["mean"] == pytest.approx(0.36 / 8, abs=4 * (1 - dice) + 1e-9)
    assert alone["styles"]["observed"] == pytest.approx([1, 0])
    above, ours, best = (numbers["ged2"]["mean"] for numbers in (alone, found, found["oracle"]))
    assert found["gap_closed"] == pytest.approx((above - ours) / (above - best))
    noise = 4 * math.hypot(*(one["ged2"]["standard_error"] for one in (found, found["oracle"])))
    assert best - noise < ours < above - noise


def test_where_one_answer_is_all_there_is_no_gap_is_closed() -> None:
    assert gap_closed(0.4, 0.2, 0.1) == pytest.approx(2 / 3)
    assert gap_closed(0.4, 0.5, 0.1) == pytest.approx(-1 / 3)
    assert gap_closed(0.0, 0.0, 0.0) is None
    assert gap_closed(0.001, 0.0, 0.002) is None


def test_a_run_with_a_z_is_no_baseline(
    squares_run: Run, evaluated: dict[str, Any], warm: Warm
) -> None:
    command = warm.start("cvae.evaluate", *beside(squares_run, squares_run)).wait()
    assert "has a z: name a run of model=deterministic" in command.error


def test_a_baseline_is_trained_to_its_end_and_evaluated_on_the_split(
    squares_run: Run, without_z: Run, warm: Warm, tmp_path: Path
) -> None:
    command = warm.start("cvae.evaluate", *beside(squares_run, without_z), "--split", "val").wait()
    assert "is not evaluated: python -m cvae.evaluate " in command.error
    run = copy(without_z, tmp_path)
    run.metrics.unlink()
    with pytest.raises(UserError, match="train it to its end"):
        read_baseline(run, "test")


def test_a_baseline_is_of_the_same_data(
    squares_run: Run, evaluated: dict[str, Any], without_z: Run, warm: Warm, tmp_path: Path
) -> None:
    other = copy(without_z, tmp_path)
    results = json.loads(other.evaluation().read_text())
    results["data"] |= {"folder": "elsewhere"}
    other.evaluation().write_text(json.dumps(results))
    folder, record = squares_run.folder, json.loads(squares_run.metrics.read_text())["data"]
    read_baseline(other, "test").check_alike(folder, record, NUM_MASKS)
    results["data"] |= {"test": "sha256:0"}
    other.evaluation().write_text(json.dumps(results))
    command = warm.start("cvae.evaluate", *beside(squares_run, other)).wait()
    assert re.search(r"--baseline .*/run is of other data \(references \w{8}\) than", command.error)
    assert json.loads(squares_run.evaluation().read_text()) == evaluated
    del results["references"]
    other.evaluation().write_text(json.dumps(results))
    with pytest.raises(UserError, match="its data have no references"):
        read_baseline(other, "test")


def test_digits_have_no_baseline_without_z(
    reference: Callable[..., Path], without_z: Run, warm: Warm
) -> None:
    command = warm.start("cvae.evaluate", *beside(Run(reference()), without_z)).wait()
    assert re.search(r"of other data \(references \w{8}\) than .* \(mnist", command.error)


def test_a_baseline_is_of_as_many_masks(
    squares_run: Run, evaluated: dict[str, Any], without_z: Run, warm: Warm
) -> None:
    command = warm.start("cvae.evaluate", *beside(squares_run, without_z), "--masks", "5").wait()
    assert "was measured with --masks 16, not 5: python -m cvae.evaluate it" in command.error
    assert json.loads(squares_run.evaluation().read_text()) == evaluated


@pytest.mark.parametrize(
    "place",
    [
        ("styles",),
        ("styles", "observed_standard_error"),
        ("styles", "none_standard_error"),
        ("styles", "largest_error"),
        ("styles", "observed", 1),
        ("ged2", "mean"),
        ("majority_dice", "standard_error"),
    ],
)
@pytest.mark.parametrize("how", ["missing", "null"])
def test_a_baseline_without_a_number_is_to_be_evaluated_again(
    without_z: Run, tmp_path: Path, place: tuple[Any, ...], how: str
) -> None:
    run = copy(without_z, tmp_path)
    results = json.loads(run.evaluation().read_text())
    node = results["references"]
    for name in place[:-1]:
        node = node[name]
    if how == "missing":
        del node[place[-1]]
    else:
        node[place[-1]] = None
    run.evaluation().write_text(json.dumps(results))
    with pytest.raises(UserError, match=r"damaged or old: python -m cvae\.evaluate it again"):
        read_baseline(run, "test")


def test_a_baseline_among_the_folders_is_measured_first(
    squares_run: Run, without_z: Run, warm: Warm, tmp_path: Path
) -> None:
    ours = Run(shutil.copytree(squares_run.folder, tmp_path / "a_sweep" / "0"))
    alone = Run(shutil.copytree(without_z.folder, tmp_path / "a_sweep" / "1"))
    alone.evaluation().unlink()
    words = (*FEW, "--masks", "5", "--baseline", str(alone.folder))
    command = warm.start("cvae.evaluate", str(tmp_path / "a_sweep"), *words).wait()
    assert command.status == 0, command.output
    assert command.output.count("\nfolder: ") == 2
    assert command.output.index(f"folder: {alone.folder}") < command.output.index(
        f"folder: {ours.folder}"
    )
    found, baseline = (
        json.loads(run.evaluation().read_text())["references"] for run in (ours, alone)
    )
    assert found["num_samples"] == baseline["num_samples"] == 5
    assert found["baseline"]["ged2"] == baseline["ged2"]
    assert "baseline" not in baseline


def test_a_baseline_alone_is_measured_as_any_run(
    without_z: Run, warm: Warm, tmp_path: Path
) -> None:
    alone = copy(without_z, tmp_path)
    command = warm.start("cvae.evaluate", *beside(alone, alone), "--masks", "5").wait()
    assert command.status == 0, command.output
    assert command.output.count("\nfolder: ") == 1
    found = json.loads(alone.evaluation().read_text())["references"]
    assert found["num_samples"] == 5
    assert "baseline" not in found
