"""Mixtures of Gaussians: what z is like where an x has several kinds of answer."""

import math

import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from cvae.noise import running_sum

HALVINGS = 26  # of an interval that holds a quantile; Newton's step squares what is left of it


class GaussianMixture(MixtureSameFamily):
    """Σ_m π_m N(z; μ_m, diag σ_m²) over z of (B, d).

    Args:
        logits: of π, (B, M).
        normal: the components' dimensions, (B, M, d).
    """

    def __init__(self, logits: Tensor, normal: Normal) -> None:
        self.normal = normal
        super().__init__(
            Categorical(logits=logits, validate_args=False),
            Independent(normal, 1, validate_args=False),
            validate_args=False,
        )

    @property
    def log_weights(self) -> Tensor:
        """log π, (B, M)."""
        logits: Tensor = self.mixture_distribution.logits
        return logits

    def log_prob_per_dimension(self, z: Tensor) -> Tensor:
        """log p(z_d | z_<d), (…, B, d), nats: by the chain rule they add up to log p(z).

        Args:
            z: (…, B, d).
        """
        per_component = running_sum(self.normal.log_prob(z.unsqueeze(-2)))
        joint = (self.log_weights.unsqueeze(-1) + per_component).logsumexp(-2)  # log p(z_≤d)
        return joint.diff(dim=-1, prepend=torch.zeros_like(joint[..., :1]))

    def nearest(self, z: Tensor) -> Normal:
        """The component that z of (B, d) is likeliest to be of, (B, d)."""
        per_component = self.normal.log_prob(z.unsqueeze(-2)).sum(-1)
        places = (self.log_weights + per_component).argmax(-1)
        every = torch.arange(len(places), device=places.device)
        loc, scale = (t[every, places] for t in (self.normal.loc, self.normal.scale))
        return Normal(loc, scale, validate_args=False)

    def transport(self, noise: Tensor) -> Tensor:
        """z with P(z_d ≤ that of z | z_<d) = Φ(ε_d) in each dimension: distributed as the mixture.

        So a mixture, too, is a function of noise alone, continuous in it; with one component it is
        μ + σε. Gradients pass as they do through that (Figurnov et al. 2018, arXiv:1805.08498).
        Source: Rosenblatt 1952, Annals of Mathematical Statistics 23, 470.

        Args:
            noise: standard-normal ε, (…, B, d).
        """
        loc, scale, ε = (t.double() for t in (self.normal.loc, self.normal.scale, noise))
        log_weights, z = self.log_weights.double(), []
        for d, ε_d in enumerate(ε.unbind(-1)):
            normal = Normal(loc[..., d], scale[..., d], validate_args=False)
            z.append(_quantile(log_weights.softmax(-1), normal, ε_d))
            log_weights = log_weights + normal.log_prob(z[-1].unsqueeze(-1))
        return torch.stack(z, -1).to(noise.dtype)


def _quantile(weights: Tensor, normal: Normal, ε: Tensor) -> Tensor:
    """z of (…, B) with Σ_m w_m Φ((z − μ_m)/σ_m) = Φ(ε), for M components in the last dimension."""
    side = torch.where(ε > 0, -1.0, 1.0).to(ε)  # the upper half mirrored: Φ has digits below only
    loc, scale, ε = side.unsqueeze(-1) * normal.loc, normal.scale, side * ε

    def left(z: Tensor) -> Tensor:
        return (weights * _cdf((z.unsqueeze(-1) - loc) / scale)).sum(-1) - _cdf(ε)

    with torch.no_grad():
        of_each = loc + scale * ε.unsqueeze(-1)  # that of all is between them
        low, high = of_each.amin(-1), of_each.amax(-1)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = left(middle) < 0
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        middle = (low + high) / 2
        z = (middle - left(middle) / _density(weights, loc, scale, middle)).clamp(low, high)
        density = _density(weights, loc, scale, z)
    # a step that changes no value has the derivatives of the solution
    remainder = left(z)
    return side * (z - (remainder - remainder.detach()) / density)


def _cdf(z: Tensor) -> Tensor:
    """Φ(z), with all digits where it is small."""
    return 0.5 * torch.erfc(-z / math.sqrt(2))


def _density(weights: Tensor, loc: Tensor, scale: Tensor, z: Tensor) -> Tensor:
    """Σ_m w_m N(z; μ_m, σ_m²), kept away from 0."""
    each = Normal(loc, scale, validate_args=False).log_prob(z.unsqueeze(-1)).exp()
    return (weights * each).sum(-1).clamp(min=torch.finfo(z.dtype).tiny)
