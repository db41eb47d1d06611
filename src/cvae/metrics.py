"""torchmetrics classes that the library does not have."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric

ACTIVE_UNIT = 0.01  # variance over the data of E_q[z_d]; Burda et al. 2016, section 5.2
Numbers = Callable[[], dict[str, Tensor]]


class Moments(Metric):
    """Mean, variance and standard error over examples, of one number or a vector an example.

    mean = Σv / n, variance = Σv² / n − mean², standard error = √(variance / n).

    The state is sums in float64, so batches of any size and processes with unequal shares add up to
    the same number. Input: (B, *shape). Output: a dict of `mean`, `variance` and `standard_error`,
    each of `shape`, and `count`.

    Args:
        shape: of one example's value: () for a number, (d,) for one number a latent dimension.
    """

    full_state_update = False
    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        zeros = torch.zeros(shape, dtype=torch.float64)
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("squares", zeros.clone(), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        values = values.detach().double()
        self.count += len(values)
        self.total += values.sum(0)
        self.squares += values.square().sum(0)

    def compute(self) -> dict[str, Tensor]:
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0)
        return {
            "mean": mean,
            "variance": variance,
            "standard_error": (variance / self.count).sqrt(),
            "count": self.count,
        }

    def _wrap_compute(self, compute: Numbers) -> Numbers:
        """Keep the shapes: what torchmetrics squeezes, a tensor of one element, is there twice."""

        def twice() -> dict[str, Tensor]:
            return {name: value.expand(2, *value.shape) for name, value in compute().items()}

        wrapped = super()._wrap_compute(twice)

        def once() -> dict[str, Tensor]:
            return {name: pair[0] for name, pair in wrapped().items()}

        return once


def mean_and_error(values: Tensor) -> dict[str, float]:
    """The mean over N examples and its standard error, standard deviation / √N, of (N,)."""
    values = values.double()
    error = values.std(correction=0).item() / math.sqrt(len(values))
    return {"mean": values.mean().item(), "standard_error": error}
