"""Learning curves: the ELBO and its two terms against the epoch, a colour a group of runs."""

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cvae.comparison.groups import Comparison, Group
from cvae.comparison.history import Curve, read_curves

TITLES = {"elbo": "ELBO", "reconstruction": "reconstruction", "kl": "KL"}
EARLY = 0.1  # fraction of the epochs whose far lower values the picture may leave out
LEGEND_COLUMNS = 3


def draw(comparison: Comparison) -> bytes:
    """The picture, as PNG.

    Raises:
        UserError: a run's metrics.csv is malformed.
    """
    groups = [
        (group, curves)
        for group in comparison.groups
        if (curves := [found for row in group.rows if (found := read_curves(row.folder))])
    ]
    lines = -(-len(groups) // LEGEND_COLUMNS)
    figure = Figure(figsize=(10, 5 + 0.25 * lines), dpi=150, layout="constrained")
    axes = figure.subplot_mosaic(
        [["elbo", "reconstruction"], ["elbo", "kl"]], width_ratios=[1.6, 1], sharex=True
    )
    parts = {curve.part for _, runs in groups for run in runs for curve in run.values()}
    for term, title in TITLES.items():
        _panel(axes[term], title, parts)
        for colour, (_, runs) in zip(_colours(len(groups)), groups, strict=True):
            _lines(axes[term], [run[term] for run in runs if term in run], colour)
        shown = [run[term] for _, runs in groups for run in runs if term in run]
        _skip_the_start(axes[term], shown)
    axes["reconstruction"].tick_params(labelbottom=False)
    axes["reconstruction"].set_xlabel("")
    _legend(figure, comparison, [group for group, _ in groups], parts)
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def _panel(axes: Axes, title: str, parts: set[str]) -> None:
    what = {"val": "validation", "train": "training"}
    label = f"{what[next(iter(parts))]} {title}" if len(parts) == 1 else title
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{label} [nats an image]")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _lines(axes: Axes, curves: Sequence[Curve], colour: str) -> None:
    """A thin line a run and a thick one for their mean, over the epochs that all of them have."""
    for curve in curves:
        _line(axes, curve, colour, faint=len(curves) > 1)
    parts = {curve.part for curve in curves}
    if len(curves) > 1 and len(parts) == 1:
        shared = sorted(set.intersection(*(set(curve.points) for curve in curves)))
        means = {e: sum(curve.points[e] for curve in curves) / len(curves) for e in shared}
        _line(axes, Curve(parts.pop(), means), colour)


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


def _legend(
    figure: Figure, comparison: Comparison, groups: Sequence[Group], parts: set[str]
) -> None:
    names = [*comparison.keys, *comparison.conditions]
    labels = [
        ", ".join(
            value if name in ("model", "density") else f"{name}={value}"
            for name, value in zip(names, group.values, strict=False)
            if value
        )
        for group in groups
    ]
    handles = [Line2D([], [], color=colour, lw=1.8) for colour in _colours(len(groups))]
    if len(parts) > 1:
        handles.append(Line2D([], [], color="0.4", ls="--"))
        labels.append("dashed: training, where nothing was validated")
    figure.legend(
        handles, labels, loc="outside lower center", ncols=LEGEND_COLUMNS, frameon=False, fontsize=9
    )
