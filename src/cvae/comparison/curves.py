"""Learning curves: the ELBO and its two terms against the epoch, a colour a group of runs."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator

from cvae.comparison.figures import TITLES, Entry, density, label, picture, plain_panel
from cvae.comparison.groups import Comparison
from cvae.comparison.history import TERMS, Curve, read_curves

PARTS = {"val": "validation", "train": "training"}
EARLY = 0.1  # fraction of the epochs whose far lower values the picture may leave out


def draw(comparison: Comparison) -> bytes | None:
    """The picture, as PNG: a row of panels for each density, as these cannot share an axis.

    None before any run has ended an epoch.

    Raises:
        UserError: a run's metrics.csv is malformed.
    """
    curves = [
        (group, [found for row in group.rows if (found := read_curves(row))])
        for group in comparison.groups
    ]
    entries = [
        Entry(label(comparison, group), density(group), found) for group, found in curves if found
    ]
    return picture(entries, _row) if entries else None


def _row(figure: SubFigure, shown: Sequence[tuple[str, list[dict[str, Curve]]]]) -> None:
    """The ELBO and its two terms."""
    axes = figure.subplot_mosaic(
        [["elbo", "reconstruction"], ["elbo", "kl"]], width_ratios=[1.6, 1], sharex=True
    )
    for term in TERMS:
        every = [run[term] for _, runs in shown for run in runs if term in run]
        _panel(axes[term], TITLES[term], {curve.part for curve in every})
        for colour, runs in shown:
            _lines(axes[term], [run[term] for run in runs if term in run], colour)
        if term != "kl":
            _skip_the_start(axes[term], every)
    axes["reconstruction"].tick_params(labelbottom=False)
    axes["reconstruction"].set_xlabel("")


def _panel(axes: Axes, title: str, parts: set[str]) -> None:
    dashed = "validation (dashed: training)"  # of runs that validate nothing
    part = PARTS[next(iter(parts))] if len(parts) == 1 else dashed
    plain_panel(axes, f"{title}, {part}", "epoch", "nats an image")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


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
