"""Final numbers against a number that was swept over, a line for all else that differs."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from cvae.comparison.figures import TITLES, Entry, density, label, picture, plain_panel
from cvae.comparison.groups import Comparison, Group
from cvae.comparison.keys import REPEATS
from cvae.comparison.table import mean_and_deviation, values_of

SIZE = "model.latent_dim"
WIDE = 8  # largest over smallest, from which on the axis is logarithmic
TICKS = 12  # numbers that have room along it
Line = Mapping[float, Group]  # by the number along the axis


def swept_key(comparison: Comparison) -> str | None:
    """The latent size if it is among what differs, or else the first number but a seed."""
    values = [group.values for group in comparison.groups if group.finished]
    columns = zip(comparison.keys, zip(*values, strict=True), strict=False)
    found = [
        key for key, column in columns if key not in REPEATS and _differ(list(map(_number, column)))
    ]
    return SIZE if SIZE in found else next(iter(found), None)


def _differ(numbers: Sequence[float | None]) -> bool:
    return None not in numbers and len(set(numbers)) > 1


def draw_sizes(comparison: Comparison, key: str) -> bytes:
    """ELBO, reconstruction, KL and active units against a key's number, as PNG.

    Each point is the mean over the runs of a group, with their standard deviation where they are
    several.
    """
    return picture(lines_against(comparison, key), partial(_row, key))


def lines_against(comparison: Comparison, key: str) -> list[Entry]:
    """A line for all that the groups differ in but a key's number."""
    place = comparison.keys.index(key)
    lines: dict[tuple[str, ...], dict[float, Group]] = {}
    for group in comparison.groups:
        if group.finished:
            others = group.values[:place] + group.values[place + 1 :]
            number = _number(group.values[place])
            assert number is not None
            lines.setdefault(others, {})[number] = group
    entries = []
    for line in lines.values():
        first = next(iter(line.values()))
        entries.append(Entry(label(comparison, first, without=key), density(first), line))
    return entries


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _row(key: str, figure: SubFigure, shown: Sequence[tuple[str, Line]]) -> None:
    axes = figure.subplots(2, 2).flat
    for panel, (term, title) in zip(axes, TITLES.items(), strict=True):
        vertical = "dimensions" if term == "active_units" else "nats an image"
        plain_panel(panel, f"{title}, test", key, vertical)
        for colour, line in shown:
            draw_line(panel, line, term, colour)
        _scale(panel, sorted({number for _, line in shown for number in line}))


def draw_line(axes: Axes, line: Line, term: str, colour: str) -> None:
    """A term's means and deviations against the number."""
    points = []
    for number, group in sorted(line.items()):
        if values := values_of(group, term):
            mean, deviation = mean_and_deviation(values)
            points.append((number, mean, math.nan if deviation is None else deviation))
    if points:
        numbers, means, deviations = zip(*points, strict=True)
        axes.errorbar(
            numbers, means, deviations, color=colour, marker="o", markersize=3, capsize=3, lw=1.5
        )


def _scale(axes: Axes, numbers: Sequence[float]) -> None:
    if numbers[0] > 0 and numbers[-1] / numbers[0] >= WIDE:
        axes.set_xscale("log")
    if len(numbers) <= TICKS:
        axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
        axes.minorticks_off()
