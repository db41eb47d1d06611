"""docs/results.md: tables of published figures beside ours, out of runs' records."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from cvae.comparison.keys import differing
from cvae.config import parse
from cvae.errors import UserError

DOCS = Path("docs")
Record = Mapping[str, Any]
Column = Callable[[Sequence[Record]], str]


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
    "ELBO": _mean(".2f", "evaluation", "elbo", "mean"),
    "right digit": _mean(".1%", "evaluation", "judge", "accuracy"),
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
        UserError: they are not of one experiment, or their estimates not of one K.
    """
    kept = [one for one in records if one["name"] == name]
    apart = differing([one["config"] for one in kept])
    apart += ["K"] if len({one["evaluation"]["num_samples"] for one in kept}) > 1 else []
    if apart:
        raise UserError(f"docs/runs/{name}_seed*.json differ in {', '.join(apart)}")
    return kept
