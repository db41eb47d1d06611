"""A linear-Gaussian model, whose posterior and evidence are known exactly; all in float64."""

from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from cvae.densities import StandardNormal
from cvae.model import ConditionalVAE

X, Y, D = 3, 5, 2
SIGMA = 0.4
SHIFT, STRETCH = 0.8, 1.2  # of the wrong posterior, in units of the exact one's scale


def double(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def normal(mean: Tensor, scale: Tensor) -> Distribution:
    return Independent(Normal(mean, scale), 1)


class LinearDecoder(nn.Module):
    """p(y|x,z) = N(W z + V x, σ² I), with orthogonal columns in W."""

    def __init__(self) -> None:
        super().__init__()
        columns, _ = torch.linalg.qr(double(Y, D))
        self.norms = torch.tensor([0.7, 1.5], dtype=torch.float64)
        self.w = nn.Parameter((columns * self.norms).contiguous())
        self.v = nn.Parameter(double(Y, X))

    def forward(self, x: Tensor, z: Tensor) -> Distribution:
        mean = z.to(x) @ self.w.T + x @ self.v.T
        return normal(mean, torch.full_like(mean, SIGMA))


class LogLinearPrior(nn.Module):
    """p(z|x) = N(M x, diag exp(2 S x))."""

    def __init__(self) -> None:
        super().__init__()
        self.m, self.s = nn.Parameter(double(D, X)), nn.Parameter(0.5 * double(D, X))

    def forward(self, x: Tensor) -> Distribution:
        return normal(x @ self.m.T, (x @ self.s.T).exp())


class ExactPosterior(nn.Module):
    """p(z|x,y) by Bayes' rule, diagonal because W's columns are orthogonal; or a shift of it."""

    def __init__(
        self, prior: nn.Module, decoder: LinearDecoder, shift: float = 0.0, stretch: float = 1.0
    ) -> None:
        super().__init__()
        self.prior, self.decoder, self.shift, self.stretch = prior, decoder, shift, stretch

    def forward(self, x: Tensor, y: Tensor) -> Distribution:
        prior, decoder = self.prior(x), self.decoder
        precision = prior.variance.reciprocal() + decoder.norms.square() / SIGMA**2
        projected = (y - x @ decoder.v.T) @ decoder.w / SIGMA**2
        mean = (prior.mean / prior.variance + projected) / precision
        scale = precision.rsqrt()
        return normal(mean + self.shift * scale, self.stretch * scale)


class LinearEncoder(nn.Module):
    """A diagonal Gaussian whose mean and log scale are linear in x and y."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(X + Y, D, dtype=torch.float64)
        self.log_scale = nn.Linear(X + Y, D, dtype=torch.float64)

    def forward(self, x: Tensor, y: Tensor) -> Distribution:
        joint = torch.cat([x, y], -1)
        return normal(self.mean(joint), (0.3 * self.log_scale(joint)).exp())


PRIORS: dict[str, Callable[[], nn.Module]] = {
    "fixed": lambda: StandardNormal(D),
    "learned": LogLinearPrior,
}


def linear_gaussian(prior: str) -> ConditionalVAE:
    """The model with its exact posterior."""
    decoder, density = LinearDecoder(), PRIORS[prior]()
    return ConditionalVAE(ExactPosterior(density, decoder), density, decoder, D)


def with_wrong_posterior(model: ConditionalVAE) -> ConditionalVAE:
    wrong = ExactPosterior(model.prior, model.decoder, SHIFT, STRETCH)  # type: ignore[arg-type]
    return ConditionalVAE(wrong, model.prior, model.decoder, D)


@torch.no_grad()
def evidence(model: ConditionalVAE, x: Tensor, y: Tensor) -> Tensor:
    """log N(y; W m(x) + V x, W diag(s²(x)) Wᵀ + σ² I)."""
    w, v = (weight.detach().numpy() for weight in (model.decoder.w, model.decoder.v))
    prior = model.prior(x)
    means = prior.mean.numpy() @ w.T + x.numpy() @ v.T
    covariances = [w @ np.diag(variance) @ w.T for variance in prior.variance.numpy()]
    values = [
        stats.multivariate_normal(mean, covariance + SIGMA**2 * np.eye(Y)).logpdf(example)
        for mean, covariance, example in zip(means, covariances, y.numpy(), strict=True)
    ]
    return torch.tensor(values)
