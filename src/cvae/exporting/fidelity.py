"""How near another form of a model is to the model: the same conditions, the same noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tabulate import tabulate
from torch import Tensor

from cvae.data.examples import Examples
from cvae.data.views import View
from cvae.errors import UserError
from cvae.evaluation.generation import Draw, Sampler, sampled_means
from cvae.evaluation.judge import Judge
from cvae.metrics import mean_and_error
from cvae.model import ConditionalVAE

DIFFERENCES = ("max_difference", "mean_difference")


@dataclass(frozen=True)
class Fidelity:
    """Compares what is drawn for the conditions of a data set with what the model itself draws.

    Attributes:
        model: the checkpoint's own, on the CPU, in evaluation mode.
        view: puts x and y together.
        examples: conditions and their labels.
        judge: says which digit a picture shows.
    """

    model: ConditionalVAE
    view: View
    examples: Examples
    judge: Judge

    def __call__(self, draw: Draw) -> dict[str, float]:
        """Another form of the model, in numbers.

        Returns:
            `max_difference` and `mean_difference` of the means of p(y|x,z), in units of a pixel's
            range, beside what `taken` returns.
        """
        means = self._means(draw)
        difference = (means - self._reference).abs()
        return {
            "max_difference": difference.max().item(),
            "mean_difference": difference.mean().item(),
            **self._taken(means),
        }

    def taken(self, draw: Draw | None = None) -> dict[str, float]:
        """Of the model itself, or of what else draws.

        Returns:
            `accuracy`, the share of pictures that the judge takes for what was asked for, and its
            `standard_error` over the pictures.

        Raises:
            UserError: the model itself draws what is no number.
        """
        return self._taken(self._reference if draw is None else self._means(draw))

    def _taken(self, means: Tensor) -> dict[str, float]:
        pictures = self.view.picture(self.examples.x, means).clamp(0, 1)
        share = mean_and_error(self.judge.correct(pictures, self.examples.labels))
        return {"accuracy": share["mean"], "standard_error": share["standard_error"]}

    @cached_property
    def _reference(self) -> Tensor:
        means = self._means(Sampler(self.model))
        if not means.isfinite().all():
            raise UserError("the model's own pixels are not finite: its weights are of no use")
        return means

    def _means(self, draw: Draw) -> Tensor:
        return sampled_means(draw, self.model.latent_dim, self.examples.x)


def percent(numbers: Mapping[str, float]) -> str:
    """An accuracy with its standard error."""
    return f"{numbers['accuracy']:.2%} ± {numbers['standard_error']:.2%}"


def table(results: Mapping[str, Any]) -> str:
    """A line for each form of a model."""
    lines = [
        [
            name,
            f"{form['bytes']:,}",
            *(f"{form[name]:.1e}" if name in form else "" for name in DIFFERENCES),
            percent(form),
        ]
        for name, form in results["forms"].items()
    ]
    headings = ["", "bytes", "largest difference", "mean difference", "taken for what was asked"]
    return "\n".join(
        [
            f"{results['examples']:,} samples, conditions of the test data; differences from the "
            "checkpoint's in units of a pixel's range; ± standard error over the samples",
            tabulate(lines, headings, disable_numparse=True, colalign=["left"] + ["right"] * 4),
        ]
    )
