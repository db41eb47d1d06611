"""The table of a comparison: means and deviations, a line a group or a run."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from cvae.comparison.groups import WHY_NOT, Comparison, Group
from cvae.comparison.keys import value_of
from cvae.comparison.rows import ORDER, Row

DECIMALS = {
    "active_units": 1,
    "epochs": 0,
    "wall_seconds": 0,
    "judge_accuracy": 4,
    "ged2": 4,
    "style_recall": 3,
    "evaluated": 0,
}
UNCONVERGED = "not converged"  # the column that names those numbers, in CSV


def title(comparison: Comparison) -> str:
    """What the table's numbers are."""
    line = "test numbers, bounds in nats an image: mean ± standard deviation over n runs"
    densities = {row.conditions["density"] for row in comparison.rows if row.finished}
    return f"{line} ({densities.pop()})" if len(densities) == 1 else line


def table(comparison: Comparison, style: str) -> str:
    """A line a group, in one of tabulate's styles."""
    names = [*comparison.keys, *comparison.conditions]
    lines = [
        [*group.values, str(len(group.finished)), *(_cell(group, m) for m in comparison.metrics)]
        for group in comparison.groups
        if group.finished
    ]
    return _render([*names, "n", *comparison.metrics], lines, style, len(names))


def runs(comparison: Comparison, style: str) -> str:
    """A line a run, in one of tabulate's styles."""
    names = [*comparison.keys, *comparison.conditions]
    lines = [
        [
            str(row.folder),
            *group.values,
            value_of(row.config, "seed"),
            *(_number(row, name) for name in comparison.metrics),
        ]
        for group in comparison.groups
        for row in group.finished
    ]
    return _render(["folder", *names, "seed", *comparison.metrics], lines, style, len(names) + 1)


def as_csv(comparison: Comparison) -> str:
    """A line a run, those that are not finished or repeat another too, all digits."""
    keys = [key for key in comparison.keys if key != "seed"]
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    names = ["folder", "finished", "repeats", *keys, "seed", *WHY_NOT, *comparison.metrics]
    writer.writerow([*names, UNCONVERGED])
    rows: list[tuple[Path | None, Row]]
    rows = [(None, row) for group in comparison.groups for row in group.rows]
    rows += [pair for group in comparison.groups for pair in group.again]
    for first, row in rows:
        values = [value_of(row.config, key) for key in (*keys, "seed")]
        conditions = [row.conditions.get(name, "") for name in WHY_NOT]
        numbers = [row.metrics.get(name, "") for name in comparison.metrics]
        finished = "true" if row.finished else "false"
        told = [row.folder, finished, first, *values, *conditions, *numbers]
        writer.writerow([*told, _listed(row.unconverged)])
    return file.getvalue()


def averages(comparison: Comparison) -> str:
    """As CSV, a line a group: how many runs, and of each number mean, deviation and count."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    parts = [f"{name}{part}" for name in comparison.metrics for part in ("", " sd", " n")]
    writer.writerow([*comparison.keys, *comparison.conditions, "n", *parts, UNCONVERGED])
    for group in comparison.groups:
        if group.finished:
            numbers = list[object]()
            for name in comparison.metrics:
                values = values_of(group, name)
                mean, deviation = mean_and_deviation(values) if values else ("", None)
                numbers += [mean, "" if deviation is None else deviation, len(values)]
            doubtful = frozenset[str]().union(*(row.unconverged for row in group.finished))
            writer.writerow([*group.values, len(group.finished), *numbers, _listed(doubtful)])
    return file.getvalue()


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and the sample standard deviation (n − 1), None of a single value."""
    with np.errstate(all="ignore"):  # of values that are not finite
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return float(np.mean(values)), deviation


def _cell(group: Group, metric: str) -> str:
    rows, values = group.finished, values_of(group, metric)
    if not values:
        return ""
    mean, deviation = mean_and_deviation(values)
    text = f"{_round(mean, metric)} ± {_round(deviation, metric) or '–'}"
    if any(metric in row.unconverged for row in rows):
        text = f"({text})"
    return text if len(values) == len(rows) else f"{text} ({len(values)} of {len(rows)})"


def _number(row: Row, metric: str) -> str:
    text = _round(row.metrics.get(metric), metric)
    return f"({text})" if metric in row.unconverged else text


def values_of(group: Group, metric: str) -> list[float]:
    """A metric of a group's finished runs, of those that have it."""
    return [row.metrics[metric] for row in group.finished if metric in row.metrics]


def _round(value: float | None, metric: str) -> str:
    name = metric.partition(" (")[0]
    return "" if value is None else f"{value:.{DECIMALS.get(name, 2)}f}"


def _render(headings: Sequence[str], lines: Sequence[Sequence[str]], style: str, words: int) -> str:
    """A table whose first columns are words, and the others numbers."""
    if style == "github":
        lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    align = ["left"] * words + ["right"] * (len(headings) - words)
    own = {name for name in headings if name.partition(" (")[0] in ORDER}
    names = [name.replace("_", " ") if name in own else name for name in headings]
    return tabulate(lines, names, tablefmt=style, disable_numparse=True, colalign=align)
