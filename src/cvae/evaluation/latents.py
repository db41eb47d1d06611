"""How a model uses its latent variables."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from cvae.densities import kl_per_dimension
from cvae.metrics import ACTIVE_UNIT
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator

BATCH = 500
DRAWN = 1000  # z of a mixture that a KL between mixtures is estimated with


@dataclass(frozen=True)
class Latents:
    """Means and scales of q(z|x,y) and of p(z|x) for N examples, (N, d) each."""

    posterior_mean: Tensor
    posterior_scale: Tensor
    prior_mean: Tensor
    prior_scale: Tensor

    @property
    def kl_per_dimension(self) -> Tensor:
        """KL(q(z_d|x,y) ‖ p(z_d|x)) in closed form, (N, d), nats."""
        posterior = _gaussian(self.posterior_mean, self.posterior_scale)
        return kl_per_dimension(posterior, _gaussian(self.prior_mean, self.prior_scale))

    @property
    def active(self) -> Tensor:
        """Which dimensions have Var over the data of E_q[z_d] > 0.01, (d,).

        Source: Burda et al. 2016, section 5.2.
        """
        return self.posterior_mean.var(0, correction=0) > ACTIVE_UNIT

    def aggregate_kl(self) -> tuple[float, float]:
        """KL(q(z) ‖ p(z)) of the two mixtures over the examples, and its standard error, nats.

        q(z) = 1/N Σ_i q(z|x_i,y_i) and p(z) = 1/N Σ_i p(z|x_i); estimated with DRAWN z from q(z).
        Small where the prior's samples look to the decoder like what it was trained on
        (Hoffman and Johnson 2016, "ELBO surgery").
        """
        draws = generator(Stream.GENERATION, 0)
        chosen = torch.randint(len(self.posterior_mean), (DRAWN,), generator=draws)
        noise = torch.randn((DRAWN, self.posterior_mean.shape[1]), generator=draws)
        z = self.posterior_mean[chosen] + self.posterior_scale[chosen] * noise
        log_ratio = _log_mixture(z, self.posterior_mean, self.posterior_scale) - _log_mixture(
            z, self.prior_mean, self.prior_scale
        )
        return log_ratio.mean().item(), log_ratio.std().item() / math.sqrt(DRAWN)

    def of(self, chosen: Tensor) -> "Latents":
        """Those of some examples, chosen by a mask (N,)."""
        return Latents(
            self.posterior_mean[chosen],
            self.posterior_scale[chosen],
            self.prior_mean[chosen],
            self.prior_scale[chosen],
        )


@torch.inference_mode()
def latents(model: ConditionalVAE, x: Tensor, y: Tensor) -> Latents:
    """Posterior and prior of each example, on the CPU.

    Args:
        model: the composition, on the device of x and y.
        x: the condition, (N, …).
        y: what is modelled, (N, …).
    """
    parts = []
    for some_x, some_y in zip(x.split(BATCH), y.split(BATCH), strict=True):
        posterior, prior = model.encoder(some_x, some_y), model.prior(some_x)
        numbers = (posterior.mean, posterior.stddev, prior.mean, prior.stddev)
        parts.append([number.cpu() for number in numbers])
    return Latents(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _gaussian(mean: Tensor, scale: Tensor) -> Distribution:
    return Independent(Normal(mean, scale), 1)


def _log_mixture(z: Tensor, means: Tensor, scales: Tensor) -> Tensor:
    """log 1/N Σ_i N(z; mean_i, scale_i²) for z of (S, d), (S,); the square is multiplied out."""
    z, means, precisions = z.double(), means.double(), scales.double() ** -2
    squares = z.square() @ precisions.T - 2 * z @ (means * precisions).T
    constants = (means.square() * precisions).sum(1) - precisions.log().sum(1)
    log_densities = -0.5 * (squares + constants + z.shape[1] * math.log(2 * math.pi))
    return log_densities.logsumexp(1) - math.log(len(means))
