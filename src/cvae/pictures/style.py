"""How all pictures look: colours, plain axes, grids of images, PNG."""

from collections.abc import Sequence
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torchvision.utils import make_grid

from cvae.pictures.grid import Grid

COLOUR, OTHER, FAINT, GREY = "#2b6cb0", "#c05621", "#cbd5e0", "#4a5568"
CLASSES = [f"C{index}" for index in range(10)]
DPI = 150
TILE = 60  # pixels that an image of a grid is about as wide as
FONT, TITLE = 8, 9  # points
GAP = 2  # pixels of an image between two
MARGIN = 8  # pixels around a grid


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=DPI)
    return buffer.getvalue()


def plain(figure: Figure) -> Figure:
    """Without the frame that a reader has no use for."""
    axes: Axes
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw(grid: Grid) -> Figure:
    """A grid with its names; each pixel of an image is a square of whole pixels of the figure."""
    rows, columns, _, height, width = grid.images.shape
    tiles = grid.images.flatten(0, 1).float().clamp(0, 1).cpu()
    mosaic = make_grid(tiles, columns, padding=GAP, pad_value=1).permute(1, 2, 0)
    scale = max(1, round(TILE / width))
    down, across = (scale * length for length in mosaic.shape[:2])
    left, top = MARGIN + _length(grid.rows), 55 if grid.columns else 35
    size = (max(left + across, _length([grid.title])) + MARGIN, top + down + MARGIN)
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI)
    box = (left / size[0], MARGIN / size[1], across / size[0], down / size[1])
    axes = figure.add_axes(box)
    axes.imshow(mosaic.numpy(), interpolation="nearest", aspect="auto")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labeltop=True, labelbottom=False, pad=1, labelsize=FONT)
    axes.set_xticks(_centres(width, columns) if grid.columns else [], grid.columns)
    axes.set_yticks(_centres(height, rows) if grid.rows else [], grid.rows)
    corner = MARGIN / size[0], 1 - MARGIN / size[1]
    figure.text(*corner, grid.title, fontsize=TITLE, va="top")
    return figure


def _centres(length: int, count: int) -> list[float]:
    """Of so many images side by side."""
    return [GAP + length / 2 + index * (length + GAP) - 0.5 for index in range(count)]


def _length(names: Sequence[str]) -> int:
    """Pixels that the longest of the names takes, about."""
    return round(0.6 * FONT / 72 * DPI * max(map(len, names), default=0))
