"""docs/results.md: tables of published figures beside ours, out of runs' records."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from cvae.columns import AGAINST, COLUMNS, Column, Record, number_of
from cvae.comparison.keys import differing
from cvae.config import parse
from cvae.data.record import which_data
from cvae.errors import UserError, unknown
from cvae.evaluation.references import NUM_MASKS
from cvae.files import read_json

DOCS = Path("docs")
PUBLISHED = DOCS / "published.yaml"
RECORD: Mapping[str, type] = {  # its parts
    "name": str,
    "command": str,
    "config": Mapping,
    "metrics": Mapping,
    "evaluation": Mapping,
}
PAGE: Mapping[str, type] = {"preface": str, "tables": list}
TABLE: Mapping[str, type] = {
    "title": str,
    "protocol": str,
    "published": list,
    "columns": list,
    "rows": list,
}
ROW: Mapping[str, type] = {"label": str, "published": list, "run": str}


def read_records(docs: Path) -> dict[Path, Record]:
    """What is kept in docs/runs, by file: in a folder below where a run's name has a /.

    Raises:
        UserError: one is no record of a run.
    """
    found = {path: read_json(path) for path in sorted((docs / "runs").rglob("*.json"))}
    for path, one in found.items():
        _check(one, RECORD, f"{path} is no record of a run: it")
    return found


def read_published(docs: Path) -> Mapping[str, Any]:
    """The published figures, the tables' columns, and what is said of each table.

    Raises:
        UserError: docs/published.yaml is not plain YAML, or something in it is missing or unknown.
    """
    content: Any = parse((docs / PUBLISHED.name).read_bytes(), PUBLISHED.name)
    _check(content, PAGE, PUBLISHED.name)
    for table in content["tables"]:
        _check_table(table)
    return dict(content)


def _check_table(table: Any) -> None:
    _check(table, TABLE, f"{PUBLISHED.name}: a table")
    place, known = f"{PUBLISHED.name}: {table['title']}", COLUMNS.keys() | AGAINST.keys()
    for column in table["columns"]:
        if column not in known:
            raise unknown(place, column, known)
    for row in table["rows"]:
        _check(row, ROW, f"{place}: a row")
    runs = [row["run"] for row in table["rows"]]
    for row in table["rows"]:
        figures, count = row["published"], len(table["published"])
        if len(figures) != count or any(not isinstance(one, int | float | None) for one in figures):
            raise UserError(f"{place}: {row['label']}: published: {count} numbers, null for none")
        if row.get("baseline") not in [*runs, None]:
            raise UserError(f"{place}: {row['label']}: its baseline is the run of no row")


def _check(node: Any, parts: Mapping[str, type], place: str) -> None:
    node = node if isinstance(node, Mapping) else {}
    if missing := [name for name, kind in parts.items() if not isinstance(node.get(name), kind)]:
        raise UserError(f"{place} has no {missing[0]}")


def render(records: Sequence[Record], published: Mapping[str, Any]) -> str:
    """docs/results.md from the records and the published figures.

    Raises:
        UserError: a record is damaged, or some cannot stand side by side.
    """
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
            (table.get("remarks") or "").strip(),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _commands(kept: Sequence[Record]) -> list[str]:
    """How the runs were trained, and how they were evaluated."""
    return [*sorted({one["command"] for one in kept}), *sorted(set(map(_evaluation, kept)))]


def _evaluation(kept: Record) -> str:
    command = "python -m cvae.evaluate FOLDER"
    command += f" --num-samples {number_of(kept, ('evaluation', 'num_samples')):.0f}"
    masks = (kept["evaluation"].get("references") or {}).get("num_samples", NUM_MASKS)
    return command if masks == NUM_MASKS else f"{command} --masks {masks}"


def _row(records: Sequence[Record], row: Mapping[str, Any], table: Mapping[str, Any]) -> list[str]:
    """One line of a table: published figures beside ours, averaged over seeds."""
    label = [row["label"], *("–" if one is None else f"{one:.2f}" for one in row["published"])]
    kept = _named(records, row["run"])
    if not kept:
        return [*label, "not run", *[""] * (len(table["columns"]) - 1)]
    baseline = _named(records, row.get("baseline"))
    if apart := _measured_apart([*kept, *baseline]):
        raise UserError(f"docs/runs: {row['run']} and {row['baseline']} differ in {apart}")
    against = {name: partial(column, baseline) for name, column in AGAINST.items()}
    columns: Mapping[str, Column] = {**COLUMNS, **against}
    return [*label, *(columns[column](kept) for column in table["columns"])]


def _named(records: Sequence[Record], name: str | None) -> list[Record]:
    """The records of a name, one a seed.

    Raises:
        UserError: they are not of one experiment, or not measured alike.
    """
    kept = [one for one in records if one["name"] == name]
    apart = ", ".join(differing([one["config"] for one in kept])) or _measured_apart(kept)
    if apart:
        raise UserError(f"docs/runs/{name}_seed*.json differ in {apart}")
    return kept


def _measured_apart(kept: Sequence[Record]) -> str:
    """What keeps evaluations from standing side by side, and what to do; nothing if they can."""
    evaluations = [one["evaluation"] for one in kept]
    facts = {
        "K: evaluate them with one --num-samples": [one.get("num_samples") for one in evaluations],
        "N: evaluate them with one --masks": [
            (one.get("references") or {}).get("num_samples") for one in evaluations
        ],
        "data": [which_data(one.get("data")) for one in evaluations],
    }
    return next((name for name, values in facts.items() if len(set(values)) > 1), "")
