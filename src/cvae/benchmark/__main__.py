"""`python -m cvae.benchmark`: images a second of five programs that train the same nets."""

import argparse
import io
import json
import logging
import math
import statistics
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout

import torch
from tqdm import tqdm

from cvae.benchmark import contenders
from cvae.command import run_command
from cvae.data.source import MNIST
from cvae.errors import UserError
from cvae.training.fit import quieten

Contender = Callable[[int, int, torch.device], float]
Speeds = Mapping[str, list[float]]
CONTENDERS: Mapping[str, Contender] = {
    "cvae": contenders.cvae,
    "bare": contenders.bare,
    "compiled": contenders.compiled,
    "usual": contenders.usual,
    "floor": contenders.floor,
}
GOALS = {"cvae/bare": 0.95, "cvae/usual": 2.2, "compiled/bare": 1.15}
GOALS_AT = 128  # images a step
MOST_STEPS = 1000  # where the floor is a GPU's, the usual way would take an hour


def those_that_work(device: torch.device) -> dict[str, Contender]:
    """The contenders that this machine can run; the reason is printed for one that it cannot."""
    working = {}
    for name, contender in CONTENDERS.items():
        try:
            with redirect_stdout(io.StringIO()):
                contender(GOALS_AT, 20, device)
        except UserError as error:
            if contender is not contenders.compiled:  # which alone needs a compiler
                raise
            print(f"{name}: {error}")
        else:
            working[name] = contender
    return working


def measure(
    programs: Mapping[str, Contender],
    batch_size: int,
    seconds: float,
    rounds: int,
    device: torch.device,
) -> Speeds:
    """Images a second of each program, round by round; they take turns.

    Args:
        programs: by name.
        batch_size: images a step.
        seconds: that a turn would take if the floor were all.
        rounds: turns of each.
        device: where.
    """
    steps = round(20 * seconds / contenders.floor(batch_size, 20, device))
    steps = min(max(20, steps), MOST_STEPS)
    speeds: Speeds = {name: [] for name in programs}
    turns = [(name, program) for _ in range(rounds) for name, program in programs.items()]
    for name, program in tqdm(turns, desc=f"batch {batch_size}", leave=False):
        with redirect_stdout(io.StringIO()):  # a bar in it is drawn, but not shown
            speeds[name].append(steps * batch_size / program(batch_size, steps, device))
    return speeds


def ratios(speeds: Speeds) -> dict[str, float]:
    """The median over the rounds of each ratio of speeds that there is a goal for."""
    found = {}
    for goal in GOALS:
        one, other = (speeds.get(name) for name in goal.split("/"))
        if one and other:
            found[goal] = statistics.median(a / b for a, b in zip(one, other, strict=True))
    return found


def _check(arguments: argparse.Namespace) -> None:
    """Refuse values that make no sense.

    Raises:
        UserError: one of them is such.
    """
    if arguments.rounds < 1:
        raise UserError(f"--rounds {arguments.rounds}: 1 or more")
    if not 0 < arguments.seconds < math.inf:
        raise UserError(f"--seconds {arguments.seconds}: more than 0")


def main() -> None:
    """Measure, print a table and a last line for scripts, end with 0 if the goals are reached."""
    parser = argparse.ArgumentParser(
        prog="python -m cvae.benchmark", description=contenders.__doc__
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each program")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn at the floor's speed")
    arguments = parser.parse_args()
    _check(arguments)
    quieten()
    logging.getLogger().setLevel(logging.ERROR)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    MNIST().prepare(None)
    print(f"training images a second on {device}, {torch.get_num_threads()} threads, medians")
    programs, found = those_that_work(device), {}
    for batch_size in (GOALS_AT, 512):
        speeds = measure(programs, batch_size, arguments.seconds, arguments.rounds, device)
        for name, values in speeds.items():
            what = str(programs[name].__doc__).splitlines()[0]
            print(f"batch {batch_size:<5}{name:10}{statistics.median(values):8,.0f}  {what}")
        found[batch_size] = ratios(speeds)
    held = all(ratio >= GOALS[goal] for goal, ratio in found[GOALS_AT].items())
    print("ratios", json.dumps({"held": held, "goals": GOALS, **found}))
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    run_command(main)
