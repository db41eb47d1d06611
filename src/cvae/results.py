"""`python -m cvae.results [FOLDER…]`: keep runs' records in docs/runs, and write docs/results.md.

A record is all that a table needs of an evaluated run: its command, config, numbers and curve. The
published figures and what is to be said about each table stand in docs/published.yaml; the tables'
other numbers come out of records.
"""

import argparse
import json
import shlex
from collections.abc import Iterable, Mapping
from math import ceil
from pathlib import Path
from typing import Any

from cvae.columns import Record
from cvae.command import run_command
from cvae.comparison.history import read_epochs
from cvae.comparison.keys import FOLDERS, differing, portable
from cvae.config import key_of, parse
from cvae.errors import UserError
from cvae.files import read_json, write_atomically
from cvae.finished import read
from cvae.published import DOCS, PUBLISHED, read_published, read_records, render
from cvae.run import Run
from cvae.runs import find_all

POINTS = 100  # of a learning curve
LOCAL = ("data.root", "trainer.enable_progress_bar")  # overrides that say nothing of the run


def record(run: Run) -> dict[str, Any]:
    """What is kept of a run.

    Raises:
        UserError: it has not been trained to its end, or not been evaluated, or does not say the
            words of its command, or one of its files is damaged.
    """
    if not (run.metrics.is_file() and run.evaluation().is_file()):
        raise UserError(f"{run.folder}: train it to its end, then python -m cvae.evaluate it")
    if not run.words.is_file():
        raise UserError(f"{run.words} is missing: nobody knows the command that began the run")
    if not (rows := read_epochs(run.folder)):
        raise UserError(f"{run.folder}: metrics.csv is missing: nobody knows the learning curve")
    given: Any = parse(run.words.read_bytes(), str(run.words))
    told = [str(word) for word in given or [] if key_of(str(word)) not in LOCAL]
    every = max(1, ceil(len(rows) / POINTS))
    return {
        "name": run.config["name"],
        "command": shlex.join(["python", "-m", "cvae.train", *map(_anywhere, told)]),
        "config": portable(run.config),
        "metrics": _without_folder(run.metrics),
        "evaluation": _without_folder(run.evaluation()),
        "curve": [_rounded(row) for row in [*rows[:-1:every], *rows[-1:]]],
    }


def keep(runs: Iterable[Run], docs: Path = DOCS) -> Path:
    """Write each run's record into docs/runs, and docs/results.md.

    A record takes the place of an earlier one of the same name and seed. Nothing is written unless
    all can be.

    Returns:
        The page's path.

    Raises:
        UserError: a run is of another experiment than one of its name, there or beside it, or was
            measured otherwise; or a file of it or of the page is damaged.
    """
    before = read_records(docs)
    new = _records(runs, docs, before)
    page = render([*{**before, **new}.values()], read_published(docs))
    for path, one in new.items():
        write_atomically(path, (json.dumps(one, indent=1) + "\n").encode())
    path = docs / "results.md"
    write_atomically(path, page.encode())
    return path


def _records(runs: Iterable[Run], docs: Path, before: Mapping[Path, Record]) -> dict[Path, Record]:
    """The runs' records by their files, each of one experiment with those of its name."""
    found = dict[Path, tuple[Run, Record]]()
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
    return {path: one for path, (_, one) in found.items()}


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
    any_path = FOLDERS.get(key_of(word))
    given, _, value = word.partition("=")
    return f"{given}={any_path}" if any_path and value not in ("true", "false") else word


def _without_folder(path: Path) -> dict[str, Any]:
    """A file of results without the folder that the data happened to be in.

    Raises:
        UserError: it says nothing of its data.
    """
    results = read_json(path)
    if not isinstance(results.get("data"), Mapping):
        raise UserError(f"{path} does not say of which data it is: train or evaluate the run again")
    data = {name: value for name, value in results["data"].items() if name != "folder"}
    return {**results, "data": data}


def _rounded(row: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in row.items()}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m cvae.results", description=__doc__)
    parser.add_argument(
        "folders",
        nargs="*",
        metavar="FOLDER",
        help="runs that have been evaluated, to be added to docs/runs or replaced there",
    )
    arguments = read(parser)
    if not PUBLISHED.is_file():
        raise UserError(f"{PUBLISHED} is not here: run it from the repository's folder")
    print(f"written to {keep(find_all(arguments.folders))}")


if __name__ == "__main__":
    run_command(main)
