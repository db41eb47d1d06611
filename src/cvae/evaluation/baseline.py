"""What one gets without z: a deterministic network's numbers, to stand beside a model's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cvae.data.record import which_data
from cvae.errors import UserError
from cvae.evaluation.report_of_references import SPREAD, rows_of_references
from cvae.files import read_json
from cvae.run import Run

KEPT = ("num_samples", "styles", *(key for _, key, _ in SPREAD))


class Baseline(NamedTuple):
    """An evaluated run of model=deterministic.

    Attributes:
        folder: the run's.
        data: that it was measured on, by name and hash.
        numbers: of its one answer against the references.
    """

    folder: Path
    data: str
    numbers: Mapping[str, Any]

    def check_alike(self, folder: Path, record: Mapping[str, str], num_masks: int) -> None:
        """Refuse to stand beside numbers of other data, or of more masks or fewer.

        Args:
            folder: of the run.
            record: of its data.
            num_masks: of each input.

        Raises:
            UserError: naming both.
        """
        if (data := which_data(record)) != self.data:
            raise UserError(
                f"--baseline {self.folder} is of other data ({self.data}) than {folder} ({data})"
            )
        if (own := self.numbers["num_samples"]) != num_masks:
            raise UserError(
                f"--baseline {self.folder} was measured with --masks {own}, not {num_masks}: "
                "python -m cvae.evaluate it again"
            )

    def beside(self, numbers: Mapping[str, Any]) -> dict[str, Any]:
        """Its own numbers, and how much of its gap to the oracle a model has closed."""
        best = numbers["oracle"]
        ged2 = (found["ged2"]["mean"] for found in (self.numbers, numbers, best))
        return {"baseline": self.numbers, "gap_closed": gap_closed(*ged2)}


def check_baseline(run: Run) -> None:
    """Refuse a run that cannot say what one gets without z, before anything is measured.

    Raises:
        UserError: it is not trained to its end, or has a z.
    """
    if not run.metrics.is_file():
        raise UserError(f"--baseline {run.folder}: train it to its end")
    if run.build_model().latent_dim:
        raise UserError(f"--baseline {run.folder} has a z: name a run of model=deterministic")


def read_baseline(run: Run, split: str) -> Baseline:
    """What the evaluation of a run without z says.

    Args:
        run: evaluated, that `check_baseline` lets pass.
        split: test or val.

    Raises:
        UserError: it is not, or its data have no references, or a number that is shown is missing.
    """
    check_baseline(run)
    path = run.evaluation(split)
    if not path.is_file():
        raise UserError(
            f"--baseline {run.folder} is not evaluated: "
            f"python -m cvae.evaluate {run.folder} --split {split}"
        )
    found = read_json(path)
    if "references" not in found:
        raise UserError(f"--baseline {run.folder}: its data have no references to measure GED² by")
    try:
        references, data = found["references"], which_data(found["data"])
        numbers = {name: references[name] for name in KEPT}
        rows_of_references({**references, "baseline": numbers})  # all that will be shown is there
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged or old: python -m cvae.evaluate it again") from error
    return Baseline(run.folder, data, {"name": run.config["name"], **numbers})


def gap_closed(without: float, ours: float, best: float) -> float | None:
    """The part of the way from the GED² of a network without z to the oracle's.

    None where that is no way down: where one answer is all there is, both may be 0.
    """
    return (without - ours) / (without - best) if without > best else None
