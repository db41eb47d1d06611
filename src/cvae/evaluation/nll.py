"""An estimate of −log p(y|x): what it is, its bias, and its two errors."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cvae.metrics import mean_and_error


@dataclass(frozen=True)
class Evidence:
    """An estimate of −log p(y|x) over N examples from R disjoint repeats of K/R samples, nats.

    Both errors are of the mean over the examples: `standard_error` is what other examples would
    change, `monte_carlo_error` what other z would.

    Attributes:
        log_means: log of the mean weight of each repeat, (R, N).
        log_squares: log Σ_k w_k² of each repeat, (R, N).
        reconstruction: mean over all z of log p(y|x,z), (N,).
        num_samples: K.
    """

    log_means: Tensor
    log_squares: Tensor
    reconstruction: Tensor
    num_samples: int

    @cached_property
    def nll(self) -> Tensor:
        """−log 1/K Σ_k w_k, (N,): in expectation too high, by O(1/K) if Var[w] is finite."""
        return _nll(self.log_means)

    @property
    def mean(self) -> float:
        """The estimate from all K."""
        return self.nll.mean().item()

    @property
    def standard_error(self) -> float:
        """Standard deviation over the examples divided by √N."""
        return mean_and_error(self.nll)["standard_error"]

    @property
    def mean_of_repeats(self) -> float:
        """The estimate from K/R samples, averaged over the repeats.

        How far it is above `mean` shows whether K are enough.
        """
        return -self.log_means.mean().item()

    @property
    def monte_carlo_error(self) -> float:
        """The jackknife's √((R−1)/R Σ_r (m_r − m̄)²), where m_r leaves repeat r out.

        Source: Efron and Stein 1981, https://doi.org/10.1214/aos/1176345462.
        """
        repeats = len(self.log_means)
        without = torch.stack(
            [
                _nll(torch.cat([self.log_means[:r], self.log_means[r + 1 :]])).mean()
                for r in range(repeats)
            ]
        )
        return math.sqrt((repeats - 1) * without.var(correction=0).item())

    @property
    def effective_samples(self) -> Tensor:
        """(Σ_k w_k)² / Σ_k w_k², (N,): K for equal weights, 1 where one sample has all of it.

        Few of them mean that q is narrow or elsewhere, and that neither error is to be relied on.
        Source: Kong 1992, University of Chicago, Department of Statistics, report 348.
        """
        log_total = self.log_means.logsumexp(0) + math.log(self.num_samples / len(self.log_means))
        return (2 * log_total - self.log_squares.logsumexp(0)).exp()

    def numbers(self) -> dict[str, float]:
        """All of it, by name."""
        names = ("mean", "standard_error", "monte_carlo_error", "mean_of_repeats")
        return {
            **{name: getattr(self, name) for name in names},
            "effective_samples": self.effective_samples.median().item(),
        }


def _nll(log_means: Tensor) -> Tensor:
    return math.log(len(log_means)) - log_means.logsumexp(0)
