"""How a model uses its latent variables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from cvae.latent import components, diagonal, kl_per_dimension, reparameterize
from cvae.memory import at_once
from cvae.metrics import ACTIVE_UNIT, mean_and_error
from cvae.mixtures import GaussianMixture
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator

BATCH = 500
KL_DRAWS = 100  # z of each example, where a KL has no closed form
DRAWN = 1000  # z of a mixture that a KL between mixtures is estimated with
AT_ONCE = 2**18  # pairs of a z and a component: 2 MiB of float64


@dataclass(frozen=True)
class Latents:
    """What q(z|x,y) and p(z|x) are for N examples.

    Attributes:
        posterior_mean: of q(z|x,y), (N, d).
        posterior_scale: of q(z|x,y), (N, d).
        prior_mean: of each component of p(z|x), (N, M, d); a Gaussian is the one of its own.
        prior_scale: of each component, (N, M, d).
        prior_log_weight: of each component, (N, M).
        kl_per_dimension: KL of q(z|x,y) from p(z|x), (N, d), nats: `cvae.latent.kl_per_dimension`.
    """

    posterior_mean: Tensor
    posterior_scale: Tensor
    prior_mean: Tensor
    prior_scale: Tensor
    prior_log_weight: Tensor
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
        alike, weights = torch.zeros(len(self.posterior_mean)), self.prior_log_weight.flatten()
        log_ratio = torch.zeros(DRAWN, dtype=torch.float64)
        for d, z_d in enumerate(z.T):
            posterior = self.posterior_mean[:, d], self.posterior_scale[:, d]
            prior = self.prior_mean[..., d].flatten(), self.prior_scale[..., d].flatten()
            log_ratio += _log_mixture(z_d, *posterior, alike) - _log_mixture(z_d, *prior, weights)
        found = mean_and_error(log_ratio)
        return found["mean"], found["standard_error"]

    def numbers(self, labels: Tensor, names: Sequence[str], seed: int) -> dict[str, Any]:
        """All of it, by name; some of it by class as well.

        Args:
            labels: the class of each example, (N,).
            names: of the classes: digits, or the annotators who drew y.
            seed: of z.
        """
        kl = self.kl_per_dimension
        masks = {names[int(label)]: labels == label for label in labels.unique()}
        parts = {name: self.of(mask) for name, mask in masks.items()}
        return {
            "active_units": int(self.active.sum()),
            "kl_per_dimension": kl.mean(0).tolist(),
            "kl_per_class": {name: kl[mask].sum(1).mean().item() for name, mask in masks.items()},
            "aggregate_kl": self._estimated(seed),
            "aggregate_kl_per_class": {name: part._estimated(seed) for name, part in parts.items()},
        }

    def _estimated(self, seed: int) -> dict[str, float]:
        mean, error = self.aggregate_kl(seed)
        return {"mean": mean, "monte_carlo_error": error}

    def of(self, chosen: Tensor) -> "Latents":
        """Those of some examples, chosen by a mask (N,) or by their positions."""
        return Latents(*(number[chosen] for number in vars(self).values()))

    def arrays(self) -> dict[str, Tensor]:
        """All of it by name; a Gaussian p(z|x) is (N, d), without dimension and weight of M = 1."""
        numbers = dict(vars(self))
        if self.prior_mean.shape[1] == 1:
            del numbers["prior_log_weight"]
            numbers |= {name: numbers[name].squeeze(1) for name in ("prior_mean", "prior_scale")}
        return numbers

    @property
    def heaviest(self) -> Tensor:
        """The mean of the component of p(z|x) that has the largest weight, (N, d)."""
        return self._components(self.prior_log_weight.argmax(1))[0]

    def prior_draws(self, draws: Generator) -> Tensor:
        """A z of each p(z|x), (N, d)."""
        places = self.prior_log_weight.exp().multinomial(1, generator=draws).squeeze(1)
        mean, scale = self._components(places)
        return mean + scale * torch.randn(mean.shape, generator=draws)

    def _components(self, places: Tensor) -> tuple[Tensor, Tensor]:
        every = torch.arange(len(places))
        return self.prior_mean[every, places], self.prior_scale[every, places]


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
        q, p = model.encoder(some_x, some_y), model.prior(some_x)
        posterior = diagonal(q)
        draws = generator(Stream.LATENTS, seed, place, device=x.device)
        shape = (KL_DRAWS if isinstance(p, GaussianMixture) else 1, *posterior.mean.shape)
        z = reparameterize(q, torch.randn(shape, device=x.device, generator=draws))
        numbers = (posterior.mean, posterior.stddev, *components(p), kl_per_dimension(q, p, z))
        parts.append([number.cpu() for number in numbers])
    return Latents(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _log_mixture(z: Tensor, means: Tensor, scales: Tensor, log_weights: Tensor) -> Tensor:
    """log Σ_i w_i N(z; mean_i, scale_i²) for z of (S,) and as many of each; Σ_i w_i is made 1."""
    z, means, scales = z.double(), means.double(), scales.double()
    log_weights = log_weights.double().log_softmax(0)
    if (means == means[0]).all() and (scales == scales[0]).all():
        means, scales, log_weights = means[:1], scales[:1], torch.zeros(1)  # one component
    total, size = torch.full_like(z, -math.inf), max(1, AT_ONCE // len(z))
    parts = (number.split(size) for number in (means, scales, log_weights))
    for mean, scale, log_weight in zip(*parts, strict=True):
        log_density = log_weight - 0.5 * ((z.unsqueeze(1) - mean) / scale).square() - scale.log()
        total = total.logaddexp(log_density.logsumexp(1))  # so few at once bound the memory
    return total - 0.5 * math.log(2 * math.pi)
