"""The benchmark runs, and its last line can be read by a script."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cvae.benchmark import contenders
from cvae.benchmark.__main__ import GOALS, ratios
from cvae.data.views import Label
from cvae.model import ConditionalVAE
from cvae.objectives import BetaElbo
from cvae.run import Run
from warm import Warm

CPU = torch.device("cpu")


@pytest.mark.slow
def test_the_last_line_holds_the_ratios_and_the_status_says_whether_goals_are_reached() -> None:
    command = [sys.executable, "-m", "cvae.benchmark", "--rounds=1", "--seconds=0.1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 1), result.stderr
    word, _, found = result.stdout.splitlines()[-1].partition(" ")
    content = json.loads(found)
    assert word == "ratios"
    compiler = shutil.which(os.environ.get("CXX", "g++"))  # the one that torch would call
    assert content["128"].keys() == GOALS.keys() - (set() if compiler else {"compiled/bare"})
    held = all(ratio >= GOALS[name] for name, ratio in content["128"].items())
    assert content["held"] is held is (result.returncode == 0)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--rounds", "0"], "--rounds 0: 1 or more"),
        (["--rounds", "-3"], "--rounds -3: 1 or more"),
        (["--seconds", "nan"], "--seconds nan: more than 0"),
        (["--seconds", "inf"], "--seconds inf: more than 0"),
        (["--seconds", "-1"], "--seconds -1.0: more than 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(warm: Warm, words: list[str], line: str) -> None:
    command = warm.start("cvae.benchmark", *words).wait()
    assert command.status == 1
    (told,) = command.output.splitlines()
    assert told.endswith(f"[ERROR] {line}")


def test_ratios_are_medians_over_the_rounds() -> None:
    speeds = {"cvae": [1.0, 2.0, 9.0], "bare": [2.0, 2.0, 3.0], "usual": [1.0, 1.0, 1.0]}
    assert ratios(speeds) == {"cvae/bare": 1.0, "cvae/usual": 2.0}


def test_the_trainer_does_the_arithmetic_of_the_plain_loop(tmp_path: Path) -> None:
    config = contenders.config(8, 1, CPU)
    run = Run(tmp_path, config)
    ours, theirs = run.build_model(), contenders.nets()
    assert shapes(ours) == shapes(theirs)
    # densities, heads, activations
    assert [type(part) for part in ours.modules()] == [type(part) for part in theirs.modules()]
    optimizer = run.part(torch.optim.Adam, "optimizer", params=ours.parameters())
    assert optimizer.defaults == contenders.adam(theirs).defaults
    assert optimizer.defaults["fused"]
    assert vars(run.part(BetaElbo, "objective")) == vars(BetaElbo())
    assert isinstance(run.view, Label)
    assert config["data"]["binarize"] == "dynamic"
    assert (config["compile"], config["trainer"]["precision"]) == (False, "32-true")


def shapes(model: ConditionalVAE) -> dict[str, torch.Size]:
    return {name: weights.shape for name, weights in model.state_dict().items()}


def test_the_floor_counts_the_products_of_the_nets() -> None:
    """Six layers forward and backward; the pixels get no gradient."""
    widths = [(784, 512), (512, 512), (512, 512), (256, 512), (512, 512), (512, 784)]
    products = sum(3 * 2 * 8 * i * o for i, o in widths) - 2 * 8 * 784 * 512
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        contenders.floor(8, 1, CPU)
    assert counter.get_total_flops() == products
