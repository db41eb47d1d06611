"""docs/results.md: tables of published figures beside ours, out of runs' records."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from cvae.columns import AGAINST, COLUMNS, Column, Record
from cvae.comparison.keys import differing
from cvae.config import parse
from cvae.errors import UserError
from cvae.files import read_json

DOCS = Path("docs")
PUBLISHED = DOCS / "published.yaml"


def read_records(docs: Path) -> dict[Path, Record]:
    """What is kept in docs/runs, by file: in a folder below where a run's name has a /."""
    return {path: read_json(path) for path in sorted((docs / "runs").rglob("*.json"))}


def render(docs: Path = DOCS) -> str:
    """docs/results.md from the records and the published figures.

    Raises:
        UserError: docs/published.yaml is not plain YAML, or a record is damaged.
    """
    records = list(read_records(docs).values())
    published: Any = parse((docs / PUBLISHED.name).read_bytes(), PUBLISHED.name)
    parts = [published["preface"].strip()]
    for table in published["tables"]:
        rows = [_row(records, row, table) for row in table["rows"]]
        headings = ["", *table["published"], *table["columns"]]
        commands = _commands([one for row in table["rows"] for one in _named(records, row["run"])])
        parts += [
            f"## {table['title']}",
            table["protocol"].strip(),
            tabulate(rows, headings, tablefmt="github", disable_numparse=True),
            "```\n" + "\n".join(commands) + "\n```" if commands else "",
            table.get("remarks", "").strip(),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _commands(kept: Sequence[Record]) -> list[str]:
    """How the runs were trained, and how they were evaluated."""
    samples = sorted({one["evaluation"]["num_samples"] for one in kept})
    return [
        *sorted({one["command"] for one in kept}),
        *(f"python -m cvae.evaluate FOLDER --num-samples {K}" for K in samples),
    ]


def _row(records: Sequence[Record], row: Mapping[str, Any], table: Mapping[str, Any]) -> list[str]:
    """One line of a table: published figures beside ours, averaged over seeds."""
    label = [row["label"], *("–" if one is None else f"{one:.2f}" for one in row["published"])]
    kept = _named(records, row["run"])
    if not kept:
        return [*label, "not run", *[""] * (len(table["columns"]) - 1)]
    baseline = _named(records, row.get("baseline"))
    against = {name: partial(column, baseline) for name, column in AGAINST.items()}
    columns: Mapping[str, Column] = {**COLUMNS, **against}
    return [*label, *(columns[column](kept) for column in table["columns"])]


def _named(records: Sequence[Record], name: str | None) -> list[Record]:
    """The records of a name, one a seed.

    Raises:
        UserError: they are not of one experiment, or their estimates not of one K.
    """
    kept = [one for one in records if one["name"] == name]
    apart = differing([one["config"] for one in kept])
    apart += ["K"] if len({one["evaluation"]["num_samples"] for one in kept}) > 1 else []
    if apart:
        raise UserError(f"docs/runs/{name}_seed*.json differ in {', '.join(apart)}")
    return kept
