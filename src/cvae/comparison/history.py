"""What a run's `metrics.csv` says of its training, epoch by epoch."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cvae.comparison.rows import Row
from cvae.errors import UserError

TERMS = ("elbo", "reconstruction", "kl")


class Curve(NamedTuple):
    """A term of a run after each epoch, nats an image.

    Attributes:
        part: of the data, `val`, or `train` where nothing was validated.
        points: by epoch.
        finished: whether the run is.
    """

    part: str
    points: Mapping[int, float]
    finished: bool


def read_curves(row: Row) -> dict[str, Curve]:
    """A run's curves by term; none of a run that ended before its first epoch did.

    Raises:
        UserError: metrics.csv is malformed.
    """
    epochs = read_epochs(row.folder)
    curves = {term: Curve(*_points(epochs, term), row.finished) for term in TERMS}
    return {term: curve for term, curve in curves.items() if curve.points}


def read_epochs(folder: Path) -> list[dict[str, float]]:
    """The numbers of each epoch by their columns; none where there is no metrics.csv.

    Raises:
        UserError: it is malformed.
    """
    path = folder / "metrics.csv"
    if not path.is_file():
        return []
    try:
        rows = csv.DictReader(io.StringIO(path.read_bytes().decode(), newline=""))
        found = [{name: float(value) for name, value in row.items() if value} for row in rows]
        if not all(row["epoch"].is_integer() for row in found):
            raise ValueError("an epoch is no whole number")
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise UserError(f"{path} is not a table of numbers with an epoch a row: {error}") from error
    return found


def _points(epochs: Sequence[Mapping[str, float]], term: str) -> tuple[str, dict[int, float]]:
    for part in ("val", "train"):
        name = f"{part}/{term}"
        if points := {int(row["epoch"]): row[name] for row in epochs if name in row}:
            return part, points
    return "train", {}
