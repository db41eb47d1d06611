"""Conditional densities: modules whose `forward` returns a `torch.distributions.Distribution`.

A density is a network that computes parameters and a head that reads them. Encoder q(z|x,y),
prior p(z|x) and decoder p(y|x,z) are all built from the classes below and in `wrappers`.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from cvae.bernoulli import bernoulli_log_prob
from cvae.continuous_bernoulli import ContinuousBernoulli
from cvae.errors import UserError
from cvae.mixtures import GaussianMixture
from cvae.ranges import Positive

MIN_SCALE, MAX_SCALE = math.exp(-7), math.exp(7)  # of a latent dimension
RARE = 1e-3  # the smallest probability, of 0 or of 1, that a decoder starts at


def bounded(raw: Tensor, low: float, high: float) -> Tensor:
    """Squash into [low, high], with slope 1 at the centre: c + h·tanh((raw − c)/h).

    Keeps exp(log scale) and the ratio of two learned scales finite whatever a network puts out.
    """
    centre, half = (high + low) / 2, (high - low) / 2
    return centre + half * torch.tanh((raw - centre) / half)


def logits_of(mean: Tensor) -> Tensor:
    """logit(mean), with the mean kept away from 0 and 1."""
    return mean.clamp(RARE, 1 - RARE).logit()


class Head(nn.Module):
    """Reads `num_parameters` tensors of one shape as an elementwise distribution of that shape.

    Attributes:
        num_parameters: how many numbers the network gives for each element.
        binary: whether the density lives on {0, 1} rather than on a continuum.
        joint: makes one distribution over all elements of an event.
    """

    num_parameters: int
    binary: bool = False
    joint: type[Independent[Any]] = Independent

    def forward(self, *parameters: Tensor) -> Distribution:
        raise NotImplementedError

    def start(self, mean: Tensor) -> Tensor:
        """Parameters (num_parameters, *shape) to begin with for data of this mean: zeros here."""
        return mean.new_zeros(self.num_parameters, *mean.shape)


class JointBernoulli(Independent[Bernoulli]):
    """torch's distribution, with `cvae.bernoulli`'s log p(y) in a third of the time."""

    def log_prob(self, value: Tensor) -> Tensor:
        return bernoulli_log_prob(self.base_dist.logits, value, self.reinterpreted_batch_ndims)


class LogitsHead(Head):
    """One of a Bernoulli's kind: its one parameter is a logit."""

    num_parameters = 1

    def start(self, mean: Tensor) -> Tensor:
        """The logits of the mean."""
        return logits_of(mean).unsqueeze(0)


class BernoulliHead(LogitsHead):
    """Bernoulli(y; sigmoid(logits)), a probability mass on {0, 1}."""

    binary = True
    joint = JointBernoulli

    def forward(self, *parameters: Tensor) -> Distribution:
        (logits,) = parameters
        return Bernoulli(logits=logits, validate_args=False)


class ContinuousBernoulliHead(LogitsHead):
    """Continuous Bernoulli(y; sigmoid(logits)), a density on [0, 1].

    It starts at the mean's logits, where its own mean is between the mean and one half.
    Source: Loaiza-Ganem and Cunningham 2019, arXiv:1907.06845, eq. 8 and 9.
    """

    def forward(self, *parameters: Tensor) -> Distribution:
        (logits,) = parameters
        return ContinuousBernoulli(logits)


class GaussianHead(Head):
    """Normal(mean, σ²), with σ fixed or learned between `min_scale` and `max_scale`.

    Args:
        scale: a fixed σ, in the units of the data; None learns one for each element.
        min_scale: the smallest σ that can be learned. A density of grey levels has no upper bound
            as σ → 0, so this number is part of what a Gaussian likelihood means.
        max_scale: the largest σ that can be learned.

    Raises:
        UserError: there is no room between the two.
    """

    def __init__(
        self,
        scale: Positive | None = None,
        min_scale: Positive = MIN_SCALE,
        max_scale: Positive = MAX_SCALE,
    ) -> None:
        super().__init__()
        if min_scale >= max_scale:
            raise UserError(f"min_scale={min_scale} has to be below max_scale={max_scale}")
        self.scale = scale
        self.low, self.high = math.log(min_scale), math.log(max_scale)
        self.num_parameters = 2 if scale is None else 1

    def forward(self, *parameters: Tensor) -> Distribution:
        mean = parameters[0]
        if self.scale is None:
            return Normal(
                mean, bounded(parameters[1], self.low, self.high).exp(), validate_args=False
            )
        return Normal(mean, torch.full_like(mean, self.scale), validate_args=False)

    def start(self, mean: Tensor) -> Tensor:
        """The mean itself, and a scale wherever zero is in its range."""
        return torch.cat([mean.unsqueeze(0), super().start(mean)[1:]])


class ConditionalDensity(nn.Module):
    """p(· | given): a network computes the head's parameters from what is given.

    Densities are computed in float32 whatever the precision of the network.

    Args:
        network: from the given tensors to (…, num_parameters, *event).
        head: from parameters to an elementwise distribution.
        event_ndim: how many dimensions one event has: 1 for z, 3 for an image.
    """

    def __init__(self, network: nn.Module, head: Head, event_ndim: int) -> None:
        super().__init__()
        self.network, self.head, self.event_ndim = network, head, event_ndim

    def start_at(self, mean: Tensor) -> None:
        """Begin near the mean of the data, as the network's last bias can without being trained.

        A network that first has to learn it does so with all that it has, and its latent dimensions
        die meanwhile. Source: Burda et al. 2016, arXiv:1509.00519, section 5.
        """
        self.network.start_at(self.head.start(mean))  # type: ignore[operator]  # it is a Drawing

    def forward(self, *given: Tensor) -> Distribution:
        parameters = self.network(*given).float().unbind(-1 - self.event_ndim)
        return self.head.joint(self.head(*parameters), self.event_ndim, validate_args=False)


class StandardNormal(nn.Module):
    """The fixed prior p(z|x) = N(0, I) over (B, latent_dim), for any condition x of (B, …).

    Whatever else is given is ignored.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def forward(self, x: Tensor, *others: Tensor) -> Distribution:
        zeros = torch.zeros(x.shape[0], self.latent_dim, device=x.device)
        return Independent(
            Normal(zeros, torch.ones_like(zeros), validate_args=False), 1, validate_args=False
        )


class MixtureDensity(nn.Module):
    """p(z | given) = Σ_m π_m(given) N(z; μ_m(given), diag σ_m²(given)).

    Source: Bishop 1994, Mixture density networks, Aston University NCRG/94/004.

    Args:
        network: from the given tensors to (…, M, 2d + 1): means, scales and the logit of π.
        components: M.
        latent_dim: d.
    """

    def __init__(self, network: nn.Module, components: int, latent_dim: int) -> None:
        super().__init__()
        self.network, self.head = network, GaussianHead()
        self.sizes = [latent_dim, latent_dim, 1]
        # components that begin in one place would all learn the same
        self.centres = nn.Parameter(torch.randn(components, latent_dim))

    def forward(self, *given: Tensor) -> Distribution:
        mean, scale, logit = self.network(*given).float().split(self.sizes, -1)
        normal = self.head(self.centres + mean, scale)
        return GaussianMixture(logit.squeeze(-1), normal)
