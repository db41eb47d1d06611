"""What an objective is: a number an example to minimise, made from the model's own terms."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from cvae.model import ConditionalVAE, Elbo

TERMS = ("elbo", "reconstruction", "kl", "loss")


class Terms(NamedTuple):
    """One evaluation of an objective, in nats.

    Attributes:
        loss: what is minimised, (B,).
        elbo: the ELBO's terms at β = 1.
        own: further numbers an example, (B,), that an objective has, by name.
    """

    loss: Tensor
    elbo: Elbo
    own: Mapping[str, Tensor] = {}

    def by_name(self) -> dict[str, Tensor]:
        """The terms that are one number an example, (B,), by the names they are logged under."""
        elbo = self.elbo
        values = (elbo.elbo, elbo.reconstruction, elbo.kl, self.loss)
        return {**dict(zip(TERMS, values, strict=True)), **self.own}


@runtime_checkable
class Objective(Protocol):
    """What the training code asks of an objective.

    Attributes:
        num_samples: the most z that an example has in training; as many in validation and test.
        terms: the names of its terms.
        monitor: the term that says which weights are best; it grows as the model gets better.
        warmup_epochs: during which that term may fall without meaning anything.
    """

    num_samples: int
    terms: tuple[str, ...]
    monitor: str
    warmup_epochs: float

    def num_noise(self, epoch: float) -> tuple[int, int]:
        """How many ε an example comes with in training: for z, and spare ones behind these."""
        ...

    def settings(self, epoch: float) -> dict[str, float]:
        """What changes in the course of training, to be logged, after so many epochs."""
        ...

    def __call__(
        self, model: ConditionalVAE, x: Tensor, y: Tensor, noise: Tensor, epoch: float
    ) -> Terms:
        """The terms of a batch; arguments as in `BetaElbo`.

        The noise of training is as `num_noise` has it, elsewhere of (num_samples, B, d).
        """
        ...
