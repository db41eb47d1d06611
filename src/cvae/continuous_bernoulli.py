"""The continuous Bernoulli distribution, exact at every logit."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

TINY = 1e-6  # logit that cannot be told from 0 in a sample
SMALL = 0.1  # |logit| below which a series is more exact in float32 than the closed form


class ContinuousBernoulli(Distribution):
    """Density p(y; η) = exp(η y) η / (exp(η) − 1) on [0, 1], for any logits η.

    torch's own class goes through probabilities, which float32 cannot tell from 0 or 1 beyond
    |η| = 16; grey images have many pixels that want a logit beyond that.

    Source: Loaiza-Ganem and Cunningham 2019, arXiv:1907.06845, eq. 8 to 10, in logits.

    Args:
        logits: η of any shape.
    """

    has_rsample = True
    arg_constraints = {"logits": constraints.real}  # noqa: RUF012  torch's own interface
    support = constraints.unit_interval

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    def expand(
        self, batch_shape: Sequence[int], _instance: Distribution | None = None
    ) -> "ContinuousBernoulli":
        """As torch's distributions do."""
        return ContinuousBernoulli(self.logits.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        """1 / (1 − exp(−η)) − 1 / η, and 1/2 + η/12 − η³/720 + … near 0."""
        eta, safe, small = self._parts()
        size = safe.abs()  # exp(−η) would overflow for η far below 0, where the mean mirrors
        upper = -1 / torch.expm1(-size) - 1 / size
        closed = torch.where(safe > 0, upper, 1 - upper)
        return torch.where(small, 0.5 + eta / 12 - eta**3 / 720, closed)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, elementwise.

        η y − log((exp(η) − 1) / η), where log((exp(η) − 1) / η) = max(η, 0) +
        log(1 − exp(−|η|)) − log |η|, and η/2 + η²/24 − η⁴/2880 + … near 0.
        """
        eta, safe, small = self._parts()
        size = safe.abs()
        closed = safe.clamp(min=0) + torch.log(-torch.expm1(-size)) - size.log()
        series = eta / 2 + eta**2 / 24 - eta**4 / 2880
        return self.logits * value - torch.where(small, series, closed)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Inverse of the distribution function at uniform draws, log(1 + u (exp(η) − 1)) / η."""
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        eta = torch.where(self.logits.abs() < TINY, TINY, self.logits)
        # With η > 0 the formula would overflow: 1 − y has −η, and any uniform draw below 1 serves.
        y = torch.log1p(uniform * torch.expm1(-eta.abs())) / -eta.abs()
        return torch.where(eta > 0, 1 - y, y)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Logits for the series, logits for the closed form, and where the series is right.

        Each is finite where the other is used, so that its gradient there is 0 and not NaN.
        """
        small = self.logits.abs() < SMALL
        large = torch.where(small, torch.ones_like(self.logits), self.logits)
        return self.logits.clamp(-SMALL, SMALL), large, small
