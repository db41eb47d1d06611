"""What the pictures of a comparison share: a row of panels a density, a colour an entry."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from cvae.comparison.groups import Comparison, Group

TITLES = {
    "elbo": "ELBO",
    "reconstruction": "reconstruction",
    "kl": "KL",
    "active_units": "active units",
}
LEGEND_WIDTH = 120  # letters


class Entry(NamedTuple):
    """What has one colour.

    Attributes:
        label: in the legend.
        density: of its numbers; those of two cannot share an axis.
        content: what is drawn.
    """

    label: str
    density: str
    content: Any


def picture(
    entries: Sequence[Entry], row: Callable[[SubFigure, Sequence[tuple[str, Any]]], None]
) -> bytes:
    """The picture, as PNG.

    Args:
        entries: in the legend's order.
        row: draws contents, each with its colour, into the panels of a density.
    """
    colours = _colours(len(entries))
    densities = list(dict.fromkeys(entry.density for entry in entries))
    labels = [entry.label for entry in entries]
    columns = max(1, min(4, LEGEND_WIDTH // (max(map(len, labels), default=0) + 8)))
    lines = sum(1 + label.count("\n") for label in labels)
    height = 4.6 * max(1, len(densities)) + 0.18 * math.ceil(lines / columns)
    figure = Figure(figsize=(10, height), dpi=150, layout="constrained")
    panels = figure.subfigures(max(1, len(densities)), squeeze=False)[:, 0]
    for panel, density in zip(panels, densities, strict=False):
        if len(densities) > 1:
            panel.suptitle(density, fontsize=10)
        pairs = zip(entries, colours, strict=True)
        row(panel, [(colour, entry.content) for entry, colour in pairs if entry.density == density])
    handles = [Line2D([], [], color=colour, lw=1.8) for colour in colours]
    if any(labels):
        figure.legend(
            handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8
        )
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def density(group: Group) -> str:
    """What the numbers of a group are."""
    return group.rows[0].conditions["density"]


def label(comparison: Comparison, group: Group, without: str = "") -> str:
    """What tells a group from the others, but for a key of theirs, wrapped."""
    names = [*comparison.keys, *comparison.conditions]
    parts = []
    for name, value in zip(names, group.values, strict=False):
        if value and name not in ("density", without):  # the panels say it
            is_group = isinstance(group.rows[0].config.get(name), Mapping)
            last = name.rpartition(".")[2]
            parts.append(value if is_group else f"{last} {value}")
    return fill(", ".join(parts), LEGEND_WIDTH)


def plain_panel(axes: Axes, title: str, horizontal: str, vertical: str) -> None:
    """Name a panel and its axes, with no more ink than that."""
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _colours(count: int) -> list[str]:
    """As far apart as so many can be."""
    if count <= 10:
        return [f"C{index}" for index in range(count)]
    return [to_hex(colormaps["turbo"](value)) for value in np.linspace(0.03, 0.97, count)]
