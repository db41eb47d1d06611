"""Learning curves: the ELBO and its two terms against the epoch, a colour a group of runs."""

import io
import math
from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cvae.comparison.groups import Comparison, Group
from cvae.comparison.history import Curve, read_curves

TITLES = {"elbo": "ELBO", "reconstruction": "reconstruction", "kl": "KL"}
PARTS = {"val": "validation", "train": "training"}
EARLY = 0.1  # fraction of the epochs whose far lower values the picture may leave out
LEGEND_WIDTH = 120  # letters
Shown = tuple[Group, str, list[dict[str, Curve]]]  # a group, its colour, its runs' curves


def draw(comparison: Comparison) -> bytes:
    """The picture, as PNG: a row of panels for each density, as these cannot share an axis.

    Raises:
        UserError: a run's metrics.csv is malformed.
    """
    curves = [
        (group, [found for row in group.rows if (found := read_curves(row))])
        for group in comparison.groups
    ]
    drawn = [(group, runs) for group, runs in curves if runs]
    colours = _colours(len(drawn))
    shown = [(group, c, runs) for (group, runs), c in zip(drawn, colours, strict=True)]
    densities = list(dict.fromkeys(_density(group) for group, _, _ in shown))
    labels = _labels(comparison, [group for group, _, _ in shown])
    columns = max(1, min(4, LEGEND_WIDTH // (max(map(len, labels), default=0) + 8)))
    lines = sum(1 + label.count("\n") for label in labels)
    height = 4.6 * max(1, len(densities)) + 0.18 * math.ceil(lines / columns)
    figure = Figure(figsize=(10, height), dpi=150, layout="constrained")
    panels = figure.subfigures(max(1, len(densities)), squeeze=False)[:, 0]
    for panel, density in zip(panels, densities, strict=False):
        if len(densities) > 1:
            panel.suptitle(density, fontsize=10)
        _row(panel, [entry for entry in shown if _density(entry[0]) == density])
    handles = [Line2D([], [], color=colour, lw=1.8) for colour in colours]
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def _density(group: Group) -> str:
    return group.rows[0].conditions["density"]


def _row(figure: SubFigure, shown: Sequence[Shown]) -> None:
    """The ELBO and its two terms."""
    axes = figure.subplot_mosaic(
        [["elbo", "reconstruction"], ["elbo", "kl"]], width_ratios=[1.6, 1], sharex=True
    )
    for term, title in TITLES.items():
        every = [run[term] for _, _, runs in shown for run in runs if term in run]
        _panel(axes[term], title, {curve.part for curve in every})
        for _, colour, runs in shown:
            _lines(axes[term], [run[term] for run in runs if term in run], colour)
        if term != "kl":
            _skip_the_start(axes[term], every)
    axes["reconstruction"].tick_params(labelbottom=False)
    axes["reconstruction"].set_xlabel("")


def _panel(axes: Axes, title: str, parts: set[str]) -> None:
    dashed = "validation (dashed: training)"  # of runs that validate nothing
    part = PARTS[next(iter(parts))] if len(parts) == 1 else dashed
    axes.set_title(f"{title}, {part}", loc="left", fontsize=10)
    axes.set_xlabel("epoch")
    axes.set_ylabel("nats an image")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _lines(axes: Axes, curves: Sequence[Curve], colour: str) -> None:
    """A thin line a run and a thick one for their mean, over the epochs that all of them have.

    Those that are not finished would end the mean early, and are left out of it.
    """
    for curve in curves:
        _line(axes, curve, colour, faint=len(curves) > 1)
    whole = [curve for curve in curves if curve.finished] or curves
    parts = {curve.part for curve in whole}
    if len(curves) > 1 and len(parts) == 1:
        shared = sorted(set.intersection(*(set(curve.points) for curve in whole)))
        means = {e: sum(curve.points[e] for curve in whole) / len(whole) for e in shared}
        _line(axes, Curve(parts.pop(), means, finished=True), colour)


def _line(axes: Axes, curve: Curve, colour: str, faint: bool = False) -> None:
    axes.plot(
        list(curve.points),
        list(curve.points.values()),
        color=colour,
        linestyle="-" if curve.part == "val" else "--",
        marker="." if len(curve.points) == 1 else "",
        linewidth=0.7 if faint else 1.8,
        alpha=0.6 if faint else 1.0,
    )


def _skip_the_start(axes: Axes, curves: Sequence[Curve]) -> None:
    """Let the first epochs' depths leave the picture, so that what follows can be told apart."""
    late, every = list[float](), list[float]()
    for curve in curves:
        values = list(curve.points.values())
        late += filter(math.isfinite, values[math.ceil(EARLY * len(values)) :])
        every += filter(math.isfinite, values)
    if late and every:
        margin = 0.05 * (max(every) - min(late)) or 1.0
        axes.set_ylim(bottom=min(late) - margin)


def _colours(count: int) -> list[str]:
    """As far apart as so many can be."""
    if count <= 10:
        return [f"C{index}" for index in range(count)]
    return [to_hex(colormaps["turbo"](value)) for value in np.linspace(0.03, 0.97, count)]


def _labels(comparison: Comparison, groups: Sequence[Group]) -> list[str]:
    """What tells the groups apart, wrapped."""
    names = [*comparison.keys, *comparison.conditions]
    labels = []
    for group in groups:
        parts = []
        for name, value in zip(names, group.values, strict=False):
            if value and name != "density":  # the panels say it
                is_group = isinstance(group.rows[0].config.get(name), Mapping)
                last = name.rpartition(".")[2]
                parts.append(value if is_group else f"{last} {value}")
        labels.append(fill(", ".join(parts), LEGEND_WIDTH))
    return labels
