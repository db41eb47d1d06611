"""`python -m cvae.results [FOLDER…]`: keep runs' records in docs/runs, and write docs/results.md.

A record is all that a table needs of an evaluated run: its command, config, numbers and curve. The
published figures and what is to be said about each table stand in docs/published.yaml; every other
number of docs/results.md comes out of a record.
"""

import argparse
import csv
import json
import shlex
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from cvae.command import run_command
from cvae.comparison.rows import read_json
from cvae.config import parse
from cvae.errors import UserError
from cvae.files import write_atomically
from cvae.run import Run, find_all

DOCS = Path("docs")
POINTS = 100  # of a learning curve
LOCAL = ("data.root", "trainer.enable_progress_bar")  # overrides that say nothing of the run
Record = Mapping[str, Any]
Column = Callable[[Sequence[Record]], str]


def record(run: Run) -> dict[str, Any]:
    """What is kept of a run.

    Raises:
        UserError: it has not been trained to its end, or not been evaluated.
    """
    if not (run.metrics.is_file() and run.evaluation.is_file()):
        raise UserError(f"{run.folder}: train it to its end, then python -m cvae.evaluate it")
    overrides = run.folder / ".hydra" / "overrides.yaml"
    given = parse(overrides.read_bytes(), str(overrides)) if overrides.is_file() else None
    words = [str(word) for word in given or [] if str(word).partition("=")[0] not in LOCAL]
    with (run.folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        "name": run.config["name"],
        "command": shlex.join(["python", "-m", "cvae.train", *words]),
        "config": {**run.config, "data": {**run.config["data"], "root": None}},
        "metrics": _portable(read_json(run.metrics)),
        "evaluation": _portable(read_json(run.evaluation)),
        "curve": [_numbers(row) for row in [*rows[: -1 : max(1, len(rows) // POINTS)], *rows[-1:]]],
    }


def keep(runs: Iterable[Run], docs: Path = DOCS) -> None:
    """Write each run's record into docs/runs."""
    (docs / "runs").mkdir(parents=True, exist_ok=True)
    for run in runs:
        kept = record(run)
        path = docs / "runs" / f"{kept['name']}_seed{run.config['seed']}.json"
        write_atomically(path, (json.dumps(kept, indent=1) + "\n").encode())


def render(docs: Path = DOCS) -> str:
    """docs/results.md from the records and the published figures.

    Raises:
        UserError: docs/published.yaml is not plain YAML.
    """
    records = [json.loads(path.read_text()) for path in sorted((docs / "runs").glob("*.json"))]
    published: Any = parse((docs / "published.yaml").read_bytes(), "published.yaml")
    parts = [published["preface"].strip()]
    for table in published["tables"]:
        rows = [_row(records, row, table) for row in table["rows"]]
        headings = ["", *table["published"], *table["columns"]]
        commands = sorted(
            {kept["command"] for row in table["rows"] for kept in _named(records, row["run"])}
        )
        parts += [
            f"## {table['title']}",
            table["protocol"].strip(),
            tabulate(rows, headings, tablefmt="github", disable_numparse=True),
            "```\n" + "\n".join(commands) + "\n```" if commands else "",
            table.get("remarks", "").strip(),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _ours(kept: Sequence[Record]) -> str:
    """Our figure, averaged over seeds."""
    mean, deviation = _over_seeds(kept)
    return f"{mean:.2f} ± {deviation:.2f}" if len(kept) > 1 else f"{mean:.2f}"


def _over_seeds(kept: Sequence[Record]) -> tuple[float, float]:
    means = [one["evaluation"]["nll"]["importance"]["mean"] for one in kept]
    return statistics.fmean(means), statistics.stdev(means) if len(means) > 1 else 0.0


def _gap(baseline: Sequence[Record], kept: Sequence[Record]) -> str:
    """How much lower our figure is than a baseline's."""
    return f"{_over_seeds(baseline)[0] - _over_seeds(kept)[0]:.2f}" if baseline else ""


def _mean(form: str, *keys: str, per: float = 1) -> Column:
    """A column with the mean of a number that is found in a record by its keys."""

    def column(kept: Sequence[Record]) -> str:
        return format(statistics.fmean(_at(one, keys) for one in kept) / per, form)

    return column


def _at(record: Record, keys: Sequence[str]) -> float:
    found: Any = record
    for key in keys:
        found = found[key]
    return float(found)


ESTIMATE = ("evaluation", "nll", "importance")
COLUMNS: Mapping[str, Column] = {
    "ours": _ours,
    "K": _mean(".0f", "evaluation", "num_samples"),
    "± data": _mean(".2f", *ESTIMATE, "standard_error"),
    "± Monte Carlo": _mean(".3f", *ESTIMATE, "monte_carlo_error"),
    "at K/10": _mean(".2f", *ESTIMATE, "mean_of_repeats"),
    "by prior sampling": _mean(".2f", "evaluation", "nll", "prior", "mean"),
    "active units": _mean(".0f", "evaluation", "latent", "active_units"),
    "seeds": lambda kept: str(len(kept)),
    "epochs": _mean(".0f", "metrics", "epochs"),
    "minutes": _mean(".0f", "metrics", "wall_seconds", per=60),
}


def _row(records: Sequence[Record], row: Mapping[str, Any], table: Mapping[str, Any]) -> list[str]:
    """One line of a table: published figures beside ours, averaged over seeds."""
    label = [row["label"], *("–" if one is None else f"{one:.2f}" for one in row["published"])]
    kept = _named(records, row["run"])
    if not kept:
        return [*label, "not run", *[""] * (len(table["columns"]) - 1)]
    baseline = _named(records, row.get("baseline"))
    columns: Mapping[str, Column] = {**COLUMNS, "below the baseline": partial(_gap, baseline)}
    return [*label, *(columns[column](kept) for column in table["columns"])]


def _named(records: Sequence[Record], name: str | None) -> list[Record]:
    """The records of a name, one a seed.

    Raises:
        UserError: their estimates are not of one kind.
    """
    kept = [one for one in records if one["name"] == name]
    for key in ("num_samples", "density"):
        if len({one["evaluation"][key] for one in kept}) > 1:
            raise UserError(f"docs/runs/{name}_seed*.json differ in {key}: evaluate them alike")
    return kept


def _portable(results: Mapping[str, Any]) -> dict[str, Any]:
    """Without the folder that the data happened to be in."""
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
    keep(find_all(arguments.folders))
    path = DOCS / "results.md"
    write_atomically(path, render().encode())
    print(f"written to {path}")


if __name__ == "__main__":
    run_command(main)
