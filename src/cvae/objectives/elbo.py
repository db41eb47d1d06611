"""The ELBO, with β and its warm-up, free bits and KL balancing."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, kl_divergence

from cvae.errors import UserError
from cvae.latent import diagonal
from cvae.mixtures import GaussianMixture
from cvae.model import ConditionalVAE
from cvae.objectives.base import TERMS, Terms
from cvae.ranges import NonNegative, Weight


class BetaElbo:
    """loss = −reconstruction + β Σ_d max(kl_d, λ).

    With β = 1 and λ = 0 the negative ELBO. β rises linearly from 0 to its value over the warm-up.
    λ is the free bits of each latent dimension, taken example by example, so that the loss of an
    example does not depend on its neighbours or on how a batch is divided among processes
    (Kingma et al. 2016, arXiv:1606.04934, eq. 15, takes the mean over the batch inside the max).
    Both q and a learned p(z|x) follow the gradient of the KL; balancing weighs the two, p's with
    2α and q's with 2(1 − α), and leaves its value alone (Hafner et al. 2021, arXiv:2010.02193,
    algorithm 2, whose weights are α and 1 − α).

    Args:
        beta: weight of the KL term after the warm-up (Higgins et al. 2017).
        warmup_epochs: epochs over which β rises from 0.
        free_bits: λ, nats a latent dimension.
        kl_balance: α; more than ½ moves p(z|x) faster than q, 1 leaves q to the reconstruction.
    """

    num_samples = 1
    terms: tuple[str, ...] = TERMS
    monitor = "elbo"

    def __init__(
        self,
        beta: NonNegative = 1.0,
        warmup_epochs: NonNegative = 0.0,
        free_bits: NonNegative = 0.0,
        kl_balance: Weight = 0.5,
    ) -> None:
        self.beta, self.warmup_epochs = beta, warmup_epochs
        self.free_bits, self.kl_balance = free_bits, kl_balance

    def beta_at(self, epoch: float) -> float:
        """β after so many epochs, a fraction of one included."""
        if epoch >= self.warmup_epochs:
            return self.beta
        return self.beta * epoch / self.warmup_epochs

    def num_noise(self, epoch: float) -> tuple[int, int]:
        """One ε."""
        return 1, 0

    def settings(self, epoch: float) -> dict[str, float]:
        """The β of this moment."""
        return {"beta": self.beta_at(epoch)}

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

        Raises:
            UserError: free bits or balancing with a prior that they are not for.
        """
        elbo = model.elbo(x, y, noise)
        if isinstance(elbo.prior, GaussianMixture) and (self.free_bits or self.kl_balance != 0.5):
            raise UserError(
                "objective.free_bits and kl_balance are for a KL in closed form, which a mixture "
                "has not: use objective.free_bits=0 objective.kl_balance=0.5, or prior=learned"
            )
        kl = elbo.kl_per_dimension
        if self.kl_balance != 0.5:
            kl = balanced_kl(elbo.posterior, elbo.prior, self.kl_balance)
        penalty = torch.clamp(kl, min=self.free_bits).sum(-1) if self.free_bits else kl.sum(-1)
        return Terms(loss=self.beta_at(epoch) * penalty - elbo.reconstruction, elbo=elbo)


def balanced_kl(posterior: Distribution, prior: Distribution, balance: float) -> Tensor:
    """KL(q ‖ p) of each latent dimension, (B, d), nats, whose gradients in p and q are weighed.

    Args:
        posterior: q, a batch of B diagonal Gaussians.
        prior: p, a batch of B diagonal Gaussians.
        balance: α; p's gradient is 2α times that of the KL, q's 2(1 − α) times.

    Raises:
        UserError: p learns nothing, or one of the two is no diagonal Gaussian.
    """
    q, p = diagonal(posterior), diagonal(prior)
    if torch.is_grad_enabled() and not p.loc.requires_grad:
        raise UserError(
            "objective.kl_balance is for a prior that learns: use objective.kl_balance=0.5, or "
            "prior=learned where the prior sees x"
        )
    return kl_divergence(_with_gradient(q, 2 * (1 - balance)), _with_gradient(p, 2 * balance))


def _with_gradient(gaussian: Normal, weight: float) -> Normal:
    """The same Gaussian, its parameters' gradients so many times theirs."""
    loc, scale = (
        number.detach() + weight * (number - number.detach())
        for number in (gaussian.loc, gaussian.scale)
    )
    return Normal(loc, scale, validate_args=False)
