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
GAP = 2  # pixels between two images


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
    columns, (height, width) = grid.images.shape[1], grid.images.shape[-2:]
    scale = max(1, round(TILE / width))
    mosaic = make_grid(
        grid.images.flatten(0, 1).float().clamp(0, 1).cpu(), columns, padding=GAP, pad_value=1
    )
    size = [scale * length / DPI for length in (mosaic.shape[2], mosaic.shape[1])]  # inches
    left, top = _width(grid.rows) + 0.1, 0.38 if grid.columns else 0.22
    whole = max(left + size[0], _width([grid.title])) + 0.05, top + size[1] + 0.05
    figure = Figure(figsize=whole, dpi=DPI)
    place = (left / whole[0], 0.05 / whole[1], size[0] / whole[0], size[1] / whole[1])
    axes = figure.add_axes(place)
    axes.imshow(mosaic.permute(1, 2, 0).numpy(), interpolation="nearest", aspect="auto")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labeltop=True, labelbottom=False, pad=1, labelsize=FONT)
    axes.set_xticks(_centres(width, len(grid.columns)), grid.columns)
    axes.set_yticks(_centres(height, len(grid.rows)), grid.rows)
    figure.text(0.05 / whole[0], 1 - 0.05 / whole[1], grid.title, fontsize=TITLE, va="top")
    return figure


def _centres(length: int, count: int) -> list[float]:
    """Of so many images side by side."""
    return [GAP + length / 2 + index * (length + GAP) for index in range(count)]


def _width(names: Sequence[str]) -> float:
    """Inches that the longest of the names takes, about."""
    return 0.6 * FONT / 72 * max(map(len, names), default=0)
