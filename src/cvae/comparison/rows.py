"""A run as a row: its final numbers, and what they are numbers of."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvae.config import Config
from cvae.data.record import which_data
from cvae.errors import UserError
from cvae.evaluation.report import converged
from cvae.files import Place, number_at, read_json
from cvae.run import Run

FINAL = {  # columns, and their names in metrics.json
    "elbo": "test/elbo",
    "reconstruction": "test/reconstruction",
    "kl": "test/kl",
    "iwae": "test/iwae",  # of runs that were trained on it
    "active_units": "test/active_units",
    "epochs": "epochs",
    "wall_seconds": "wall_seconds",
}
ORDER = (  # of the columns; `nll (K=…)` and what N samples give have these numbers in their names
    "elbo",
    "reconstruction",
    "kl",
    "iwae",
    "nll",
    "judge_accuracy",
    "ged2",
    "style_recall",
    "evaluated",
    "active_units",
    "epochs",
    "wall_seconds",
)
EVALUATED: Mapping[str, Place] = {  # columns, and where they are in evaluation.json
    "judge_accuracy": ("judge", "accuracy"),
    "evaluated": ("examples",),  # images
}
COUNTED: Mapping[str, tuple[Place, str, Place]] = {  # those whose name says of how many samples
    "nll": (("nll", "importance", "mean"), "K", ("num_samples",)),
    "ged2": (("references", "ged2", "mean"), "N", ("references", "num_samples")),
    "style_recall": (("references", "style_recall", "mean"), "N", ("references", "num_samples")),
}
TEST_PIXELS = {"dynamic": "drawn", "static": "drawn"}  # one draw for both: only training differs
TESTED: Place = ("test/examples",)


@dataclass(frozen=True)
class Row:
    """A run.

    Attributes:
        folder: the run's.
        config: the run's.
        metrics: its final numbers by column; none if it is not finished.
        conditions: density, dataset, images, pixels and binarize, which have to be the same for
            numbers to be compared; the density alone if it is not finished.
        unconverged: those of the metrics that more samples would change.
    """

    folder: Path
    config: Config
    metrics: Mapping[str, float]
    conditions: Mapping[str, str]
    unconverged: frozenset[str] = frozenset()

    @property
    def finished(self) -> bool:
        return bool(self.metrics)


def read_row(run: Run) -> Row:
    """What a run's folder says.

    Raises:
        UserError: its config is none, or one of its files is malformed.
    """
    try:
        config = run.config
    except UserError as error:
        raise UserError(f"{run.folder}: {error}") from error
    if not run.metrics.is_file():
        return Row(run.folder, config, {}, {"density": _planned_density(run)})
    final = read_json(run.metrics)
    found = {name: number_at(final, (key,), run.metrics) for name, key in FINAL.items()}
    evaluated, doubtful = _evaluation(run.evaluation())
    found |= evaluated
    tested = number_at(final, TESTED, run.metrics)
    if found.get("evaluated") == tested:
        found.pop("evaluated", None)  # of as many images as all the rest
    metrics = {name: value for name, value in found.items() if value is not None}
    if not metrics:
        raise UserError(f"{run.metrics} holds none of {', '.join(FINAL.values())}")
    seen = {
        "images": "" if tested is None else f"{tested:.0f}",
        "pixels": _pixels(run),
        "binarize": _test_pixels(config),
    }
    return Row(run.folder, config, metrics, _conditions(final) | seen, doubtful)


def _planned_density(run: Run) -> str:
    """Of a run that has not ended; unknown where its own values forbid it to begin."""
    with suppress(UserError):
        return run.density
    return ""


def _evaluation(path: Path) -> tuple[dict[str, float | None], frozenset[str]]:
    """The numbers that `cvae.evaluate` adds, where it was run.

    And those of them that a tenth of the samples would make much larger.
    """
    if not path.is_file():
        return {}, frozenset()
    content = read_json(path)
    found = {name: number_at(content, place, path) for name, place in EVALUATED.items()}
    doubtful = set()
    for name, (place, letter, size) in COUNTED.items():
        if (value := number_at(content, place, path)) is None:
            continue
        if (samples := number_at(content, size, path)) is None:
            raise UserError(f"{path}: {'/'.join(size)} is missing")
        column = f"{name} ({letter}={samples:.0f})"
        found[column] = value
        tenth = number_at(content, (*place[:-1], "mean_of_repeats"), path)
        if tenth is not None and not converged({"mean": value, "mean_of_repeats": tenth}):
            doubtful.add(column)
    return found, frozenset(doubtful)


def _conditions(final: Mapping[str, Any]) -> dict[str, str]:
    return {"density": str(final.get("density", "")), "dataset": which_data(final.get("data"))}


def _pixels(run: Run) -> str:
    """How many numbers of an image are modelled."""
    return str(math.prod(run.view.y_shape))


def _test_pixels(config: Config) -> str:
    """What made them 0 or 1; nothing where the data know no such key, such as masks."""
    binarize = str(config["data"].get("binarize", "none"))
    return TEST_PIXELS.get(binarize, binarize)
