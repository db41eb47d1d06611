"""What a run's `metrics.csv` says of its training, epoch by epoch."""

import csv
import io
from collections.abc import Mapping, Sequence
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
    path = row.folder / "metrics.csv"
    if not path.is_file():
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))
        curves = {term: Curve(*_points(rows, term), row.finished) for term in TERMS}
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise UserError(f"{path} is not a table of numbers with an epoch a row: {error}") from error
    return {term: curve for term, curve in curves.items() if curve.points}


def _points(rows: Sequence[Mapping[str, str]], term: str) -> tuple[str, dict[int, float]]:
    for part in ("val", "train"):
        filled = [row for row in rows if row.get(f"{part}/{term}")]
        if filled:
            return part, {int(row["epoch"]): float(row[f"{part}/{term}"]) for row in filled}
    return "train", {}
