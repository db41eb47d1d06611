"""How a model uses its latent variables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvae.latent import component, diagonal, kl_per_dimension, reparameterize
from cvae.memory import at_once
from cvae.metrics import ACTIVE_UNIT, mean_and_error
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator

BATCH = 500
DRAWN = 1000  # z of a mixture that a KL between mixtures is estimated with


@dataclass(frozen=True)
class Latents:
    """What q(z|x,y) and p(z|x) are for N examples, (N, d) each.

    Where p(z|x) is a mixture it is seen as one of its components, drawn by their weights for each
    example: what is computed over all examples is right on average.

    Attributes:
        posterior_mean: of q(z|x,y).
        posterior_scale: of q(z|x,y).
        prior_mean: of p(z|x).
        prior_scale: of p(z|x).
        kl_per_dimension: KL(q(z_d|x,y) ‖ p(z_d|x)), nats: `cvae.latent.kl_per_dimension`.
    """

    posterior_mean: Tensor
    posterior_scale: Tensor
    prior_mean: Tensor
    prior_scale: Tensor
    kl_per_dimension: Tensor

    @property
    def active(self) -> Tensor:
        """Which dimensions have Var over the data of E_q[z_d] > 0.01, (d,).

        Source: Burda et al. 2016, section 5.2.
        """
        mean = self.posterior_mean.mean(0)  # torch.var warns where d is 0
        return (self.posterior_mean - mean).square().mean(0) > ACTIVE_UNIT

    def aggregate_kl(self, seed: int = 0) -> tuple[float, float]:
        """Σ_d KL(q(z_d) ‖ p(z_d)) of mixtures over the examples, and its Monte Carlo error, nats.

        q(z_d) = 1/N Σ_i q(z_d|x_i,y_i) and p(z_d) = 1/N Σ_i p(z_d|x_i), dimension by dimension: in
        all at once N posteriors lie apart, and the divergence would be near its smallest, the mean
        KL less log N, whatever they fill together. Estimated with DRAWN z from q(z);
        it is small where the prior's z are spread like those the decoder was trained on
        (Hoffman and Johnson 2016, "ELBO surgery").

        Args:
            seed: of z.
        """
        draws = generator(Stream.AGGREGATE, seed)
        chosen = torch.randint(len(self.posterior_mean), (DRAWN,), generator=draws)
        noise = torch.randn((DRAWN, self.posterior_mean.shape[1]), generator=draws)
        z = self.posterior_mean[chosen] + self.posterior_scale[chosen] * noise
        log_ratio = torch.zeros(DRAWN, dtype=torch.float64)
        for z_d, *numbers in zip(z.T, *(number.T for number in self._parameters()), strict=True):
            mean, scale, prior_mean, prior_scale = numbers
            log_ratio += _log_mixture(z_d, mean, scale) - _log_mixture(z_d, prior_mean, prior_scale)
        found = mean_and_error(log_ratio)
        return found["mean"], found["standard_error"]

    def numbers(self, labels: Tensor, names: Sequence[str], seed: int) -> dict[str, Any]:
        """All of it, by name; some of it by class as well.

        Args:
            labels: the class of each example, (N,).
            names: of the classes: digits, or the annotators who drew y.
            seed: of z.
        """
        kl, (aggregate, error) = self.kl_per_dimension, self.aggregate_kl(seed)
        masks = {names[int(label)]: labels == label for label in labels.unique()}
        parts = {name: self.of(mask) for name, mask in masks.items()}
        return {
            "active_units": int(self.active.sum()),
            "kl_per_dimension": kl.mean(0).tolist(),
            "kl_per_class": {name: kl[mask].sum(1).mean().item() for name, mask in masks.items()},
            "aggregate_kl": {"mean": aggregate, "monte_carlo_error": error},
            "aggregate_kl_per_class": {
                name: part.aggregate_kl(seed)[0] for name, part in parts.items()
            },
        }

    def _parameters(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.posterior_mean, self.posterior_scale, self.prior_mean, self.prior_scale

    def of(self, chosen: Tensor) -> "Latents":
        """Those of some examples, chosen by a mask (N,)."""
        numbers = (*self._parameters(), self.kl_per_dimension)
        return Latents(*(number[chosen] for number in numbers))


@torch.inference_mode()
def latents(model: ConditionalVAE, x: Tensor, y: Tensor, seed: int = 0) -> Latents:
    """Posterior and prior of each example, on the CPU.

    Args:
        model: the composition, on the device of x and y.
        x: the condition, (N, …).
        y: what is modelled, (N, …).
        seed: of the draws that a mixture needs.

    Raises:
        UserError: q(z|x,y) is not a diagonal Gaussian, or p(z|x) neither that nor a mixture.
    """
    parts = []
    size = at_once(BATCH, y[0].numel())
    for place, (some_x, some_y) in enumerate(zip(x.split(size), y.split(size), strict=True)):
        draws = generator(Stream.LATENTS, seed, place, device=x.device)
        q, p = model.encoder(some_x, some_y), model.prior(some_x)
        noise = torch.randn(q.batch_shape + q.event_shape, device=x.device, generator=draws)
        kl = kl_per_dimension(q, p, reparameterize(q, noise))
        seen = (diagonal(component(density, draws)) for density in (q, p))
        numbers = (number for normal in seen for number in (normal.mean, normal.stddev))
        parts.append([number.cpu() for number in (*numbers, kl)])
    return Latents(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _log_mixture(z: Tensor, means: Tensor, scales: Tensor) -> Tensor:
    """log 1/N Σ_i N(z; mean_i, scale_i²) for z of (S,) and N means and scales, (S,)."""
    z, means, scales = z.double(), means.double(), scales.double()
    if (means == means[0]).all() and (scales == scales[0]).all():
        means, scales = means[:1], scales[:1]  # a fixed prior is one component
    total, size = torch.full_like(z, -math.inf), at_once(BATCH, len(z))
    for mean, scale in zip(means.split(size), scales.split(size), strict=True):
        log_density = -0.5 * ((z.unsqueeze(1) - mean) / scale).square() - scale.log()
        total = total.logaddexp(log_density.logsumexp(1))  # so few at once bound the memory
    return total - 0.5 * math.log(2 * math.pi) - math.log(len(means))
