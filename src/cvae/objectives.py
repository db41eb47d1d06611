"""What training minimises: a number an example, made from the model's own terms."""

from typing import Annotated, NamedTuple, Protocol

import torch
from annotated_types import Ge
from torch import Tensor

from cvae.model import ConditionalVAE, Elbo

NonNegative = Annotated[float, Ge(0)]
TERMS = ("loss", "reconstruction", "kl", "elbo")  # one number an example, logged by these names


class Terms(NamedTuple):
    """One evaluation of an objective, in nats: the loss (B,), and the ELBO's terms at β = 1."""

    loss: Tensor
    elbo: Elbo

    def by_name(self) -> dict[str, Tensor]:
        """The terms that are one number an example, (B,), by the names they are logged under."""
        elbo = self.elbo
        values = (self.loss, elbo.reconstruction, elbo.kl, elbo.elbo)
        return dict(zip(TERMS, values, strict=True))


class Objective(Protocol):
    """What the training code asks of an objective.

    Attributes:
        num_samples: how many z it draws for an example.
        monitor: the term that says which weights are best; it grows as the model gets better.
        warmup_epochs: during which that term may fall without meaning anything.
    """

    num_samples: int
    monitor: str
    warmup_epochs: float

    def beta_at(self, epoch: float) -> float:
        """The weight of the KL term after so many epochs."""
        ...

    def __call__(
        self, model: ConditionalVAE, x: Tensor, y: Tensor, noise: Tensor, epoch: float
    ) -> Terms:
        """The loss and the ELBO's terms of a batch."""
        ...


class BetaElbo:
    """loss = −reconstruction + β Σ_d max(kl_d, λ).

    With β = 1 and λ = 0 the negative ELBO. β rises linearly from 0 to its value over the warm-up.
    λ is the free bits of each latent dimension, taken example by example, so that the loss of an
    example does not depend on its neighbours or on how a batch is divided among processes
    (Kingma et al. 2016, arXiv:1606.04934, eq. 15, takes the mean over the batch inside the max).

    Args:
        beta: weight of the KL term after the warm-up (Higgins et al. 2017).
        warmup_epochs: epochs over which β rises from 0.
        free_bits: λ, nats a latent dimension.
    """

    num_samples = 1
    monitor = "elbo"

    def __init__(
        self,
        beta: NonNegative = 1.0,
        warmup_epochs: NonNegative = 0.0,
        free_bits: NonNegative = 0.0,
    ) -> None:
        self.beta, self.warmup_epochs, self.free_bits = beta, warmup_epochs, free_bits

    def beta_at(self, epoch: float) -> float:
        """β after so many epochs, a fraction of one included."""
        if epoch >= self.warmup_epochs:
            return self.beta
        return self.beta * epoch / self.warmup_epochs

    def __call__(
        self, model: ConditionalVAE, x: Tensor, y: Tensor, noise: Tensor, epoch: float
    ) -> Terms:
        """The loss and the ELBO's terms of a batch.

        Args:
            model: the composition.
            x: the condition, (B, …).
            y: what is modelled, (B, …).
            noise: standard-normal ε, (num_samples, B, d).
            epoch: epochs trained so far, a fraction included.
        """
        elbo = model.elbo(x, y, noise)
        kl = elbo.kl_per_dimension
        penalty = torch.clamp(kl, min=self.free_bits).sum(-1) if self.free_bits else kl.sum(-1)
        return Terms(loss=self.beta_at(epoch) * penalty - elbo.reconstruction, elbo=elbo)
