"""What the page says of the run that it came from."""

import math
from collections.abc import Mapping
from typing import Any

from cvae.errors import UserError
from cvae.exporting.fidelity import percent
from cvae.files import read_json
from cvae.run import Run

TERMS = {"elbo": "ELBO", "reconstruction": "reconstruction", "kl": "KL"}


def facts(run: Run, checkpoint: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, str]:
    """Names and values, in words; of a folder from anywhere, so they are not safe as HTML.

    Args:
        run: that the page came from.
        checkpoint: fidelity of the run's model itself.
        own: fidelity of the page's weights, with its `first` temperature's.

    Raises:
        UserError: the folder's metrics.json does not hold a run's test numbers.
    """
    first = own["first"]
    return {
        "run": f"{run.config['name']}, {run.folder.resolve().name}",
        **_tested(run),
        "weights of this page": "8-bit; its pixels differ from the checkpoint’s by "
        f"{own['mean_difference']:.2%} of their range on average, before the page sharpens the ink",
        "taken for the digit asked for": f"{percent(own)} of samples at temperature 1 (the "
        f"checkpoint’s own: {percent(checkpoint)}), {percent(first)} at {first['temperature']}, by "
        "a classifier that was trained on real digits; ± standard error",
    }


def _tested(run: Run) -> dict[str, str]:
    if not run.metrics.is_file():
        return {"test numbers": "none, the run has not ended"}
    metrics = read_json(run.metrics)
    try:
        numbers = {
            name: (float(metrics[f"test/{term}"]), float(metrics[f"test/{term}_standard_error"]))
            for term, name in TERMS.items()
        }
        examples = int(metrics["test/examples"])
        if not all(math.isfinite(number) for pair in numbers.values() for number in pair):
            raise ValueError("a test number is not finite")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{run.metrics} does not hold a run's test numbers: {error}") from error
    return {
        **{
            f"test {name}": f"{mean:.2f} ± {error:.2f} nats an image".replace("-", "−")
            for name, (mean, error) in numbers.items()
        },
        "test images": f"{examples:,}; ± is the standard error over them; {run.density}",
    }
