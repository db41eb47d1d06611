"""`python -m cvae.results [FOLDER…]`: keep runs' records in docs/runs, and write docs/results.md.

A record is all that a table needs of an evaluated run: its command, config, numbers and curve. The
published figures and what is to be said about each table stand in docs/published.yaml; the tables'
other numbers come out of records.
"""

import argparse
import csv
import json
import shlex
from collections.abc import Iterable, Mapping
from math import ceil
from pathlib import Path
from typing import Any

from cvae.columns import Record
from cvae.command import run_command
from cvae.comparison.keys import FOLDERS, differing, portable
from cvae.config import parse
from cvae.errors import UserError
from cvae.files import read_json, write_atomically
from cvae.published import DOCS, PUBLISHED, read_records, render
from cvae.run import Run
from cvae.runs import find_all

POINTS = 100  # of a learning curve
LOCAL = ("data.root", "trainer.enable_progress_bar")  # overrides that say nothing of the run


def record(run: Run) -> dict[str, Any]:
    """What is kept of a run.

    Raises:
        UserError: it has not been trained to its end, or not been evaluated, or does not say the
            words of its command.
    """
    if not (run.metrics.is_file() and run.evaluation().is_file()):
        raise UserError(f"{run.folder}: train it to its end, then python -m cvae.evaluate it")
    if not run.words.is_file():
        raise UserError(f"{run.words} is missing: nobody knows the command that began the run")
    given: Any = parse(run.words.read_bytes(), str(run.words))
    told = [str(word) for word in given or [] if str(word).partition("=")[0] not in LOCAL]
    with (run.folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    every = max(1, ceil(len(rows) / POINTS))
    return {
        "name": run.config["name"],
        "command": shlex.join(["python", "-m", "cvae.train", *map(_anywhere, told)]),
        "config": portable(run.config),
        "metrics": _without_folder(read_json(run.metrics)),
        "evaluation": _without_folder(read_json(run.evaluation())),
        "curve": [_numbers(row) for row in [*rows[:-1:every], *rows[-1:]]],
    }


def keep(runs: Iterable[Run], docs: Path = DOCS) -> None:
    """Write each run's record into docs/runs, in place of an earlier one of the same name and seed.

    Raises:
        UserError: a run is of another experiment than one of its name, there or beside it.
    """
    found, before = dict[Path, tuple[Run, Record]](), read_records(docs)
    for run in runs:
        kept = record(run)
        path = docs / "runs" / f"{kept['name']}_seed{run.config['seed']}.json"
        if path in found:
            raise UserError(
                f"{run.folder} and {found[path][0].folder} have the same name and seed: tell them "
                "apart by name=NAME when they are trained"
            )
        found[path] = run, kept
        given = {other.folder: one for other, one in found.values()}
        _check_alike(run, kept, {**given, **before})
    for path, (_, one) in found.items():
        write_atomically(path, (json.dumps(one, indent=1) + "\n").encode())


def _check_alike(run: Run, kept: Record, others: Mapping[Path, Record]) -> None:
    namesakes = {place: one for place, one in others.items() if one["name"] == kept["name"]}
    for place, other in namesakes.items():
        if apart := differing([kept["config"], other["config"]]):
            raise UserError(
                f"{run.folder} and {place} differ in {', '.join(apart)}: remove that record, or "
                "train one of them with a name=NAME of its own"
            )


def _anywhere(word: str) -> str:
    """A word of a command without the path that it may hold, as `portable` leaves a config."""
    key, _, value = word.partition("=")
    any_path = FOLDERS.get(key)
    return f"{key}={any_path}" if any_path and value not in ("true", "false") else word


def _without_folder(results: Mapping[str, Any]) -> dict[str, Any]:
    """Without that which the data happened to be in."""
    data = {name: value for name, value in results["data"].items() if name != "folder"}
    return {**results, "data": data}


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in row.items() if value}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m cvae.results", description=__doc__)
    parser.add_argument(
        "folders",
        nargs="*",
        metavar="FOLDER",
        help="runs that have been evaluated, to be added to docs/runs or replaced there",
    )
    arguments = parser.parse_args()
    if not PUBLISHED.is_file():
        raise UserError(f"{PUBLISHED} is not here: run it from the repository's folder")
    keep(find_all(arguments.folders))
    path = DOCS / "results.md"
    write_atomically(path, render().encode())
    print(f"written to {path}")


if __name__ == "__main__":
    run_command(main)
