"""The Bernoulli log-probability of an image, which takes most of the time that products do not."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LARGEST_FACTOR = 100  # elements whose product of at least 2^-100 a float32 can still hold
BLOCK = 2**18  # elements whose every step finds them in a core's own cache: a MiB


class _LogProb(torch.autograd.Function):
    """Σ y·l − softplus(l) = Σ log σ(|l|) − ½(|l| − 2(y − ½)·l), for l and y of (…, n) to (…).

    The first term is the log of a product of numbers in [½, 1], taken in factors that do not
    underflow: n / 98 logarithms instead of n. The gradient is y − σ(l).
    On a CPU the many samples of an estimate are taken block by block, for its caches.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(logits, y)
        centred = y - 0.5
        many = logits.dim() > y.dim() and logits.shape[-y.dim() :] == y.shape
        if not many or logits.device.type != "cpu":
            return _log_prob(logits, centred)
        samples = max(1, BLOCK // max(1, y.numel()))
        blocks = logits.flatten(0, -1 - y.dim()).split(samples)
        return torch.cat([_log_prob(block, centred) for block in blocks]).reshape(logits.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, y = ctx.saved_tensors
        return (y - logits.sigmoid()) * gradient.unsqueeze(-1), None


def _log_prob(logits: Tensor, centred: Tensor) -> Tensor:
    """The sums for l of (…, n) and y − ½."""
    size = max(n for n in range(1, LARGEST_FACTOR + 1) if logits.shape[-1] % n == 0)
    magnitude = logits.abs()
    # one pass; for a y of 0 or 1 each difference is 0 or 2|l| exactly
    lost = torch.addcmul(magnitude, centred, logits, value=-2).sum(-1)
    factors = magnitude.sigmoid_().unflatten(-1, (-1, size)).prod(-1)
    return factors.log().sum(-1) - lost / 2


def bernoulli_log_prob(logits: Tensor, y: Tensor, event_ndim: int) -> Tensor:
    """Σ y·log σ(l) + (1 − y)·log σ(−l), nats, summed over the last `event_ndim` dimensions.

    Args:
        logits: l, (…, B, *event); differentiable once.
        y: in [0, 1], (B, *event); a constant.
        event_ndim: how many dimensions one event has, one at least.
    """
    return _LogProb.apply(logits.flatten(-event_ndim), y.flatten(-event_ndim))
