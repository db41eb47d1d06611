"""Which reference a sample is like, and how often: metrics of styles.

A style is the index of a reference, 0 … A − 1, for example the number of an annotator. Shapes are
those of `cvae.spread`. A reference of probability zero is a candidate too: to draw it is a mistake
that should be seen.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from cvae.errors import UserError
from cvae.masks import iou, rounded
from cvae.metrics import Moments

STYLE_IOU = 0.5  # above it, two masks share more pixels than they differ in
NUM_BINS = 5
FEW = 0.01  # the share of examples below which a bin's difference is mostly noise


def styles(samples: Tensor, references: Tensor, threshold: float = STYLE_IOU) -> Tensor:
    """The style of each sample: its nearest reference, argmaxₐ IoU(s, yₐ), ties to the first.

    Args:
        samples: boolean masks, (B, N, …).
        references: boolean masks, (B, A, …).
        threshold: an IoU that has to be exceeded.

    Returns:
        (B, N) of int64; −1 where no reference is near enough.
    """
    near = nearest(samples, references, threshold)
    return torch.where(near.any(2), near.int().argmax(2), -1)


def nearest(samples: Tensor, references: Tensor, threshold: float) -> Tensor:
    """Whether a sample has a style, (B, N, A); each of several that are equally near counts."""
    overlaps = iou(samples, references)
    best = overlaps.amax(2, keepdim=True)
    return (overlaps == best) & (best > threshold)


def shares(
    samples: Tensor, references: Tensor, probabilities: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """The share of the samples that have each style, (B, A), and that have none, (B,).

    A sample as near to several references is divided among them as their probabilities are: two
    references that are the same mask are then drawn as often as they should be.
    """
    near = nearest(samples, references, threshold)
    tiny = torch.finfo(torch.float64).tiny  # divides equally where all of them are impossible
    parts = near * (probabilities.double() + tiny)[:, None]
    divided = parts / parts.sum(2, keepdim=True).clamp(min=tiny)
    return divided.mean(1), (~near.any(2)).double().mean(1)


def style_recall(
    samples: Tensor, references: Tensor, probabilities: Tensor, threshold: float = STYLE_IOU
) -> Tensor:
    """The share of the styles with pₐ > 0 that at least one of an example's N samples has, (B,).

    A sample as near to several references finds them all. The oracle finds style a with
    probability 1 − (1 − pₐ)ᴺ, so 1 may be out of reach.

    Args:
        samples: N masks of each example.
        references: A masks.
        probabilities: of the references.
        threshold: the IoU with its reference that a sample has to exceed.
    """
    found = nearest(samples, references, threshold).any(1)
    possible = probabilities > 0
    return (found & possible).sum(1).double() / possible.sum(1)


class StyleFrequencies(Moments):
    """How often each style is drawn, beside how often it should be.

    The moments are those of an example's shares of samples: of each style, and without any. For
    each style a the examples are put into bins by pₐ as well: [0, 0.2), … [0.8, 1]. `compute`
    returns

    - `expected`, `observed` (A,): the means over all examples of pₐ and of the share of samples
      that have style a,
    - `none` (): the mean share of samples without a style,
    - `observed_standard_error` (A,), `none_standard_error` (): of these means, over the examples,
    - `counts`, `expected_per_bin`, `observed_per_bin` (A, 5): the examples in each bin and the two
      means over them, NaN where there are none,
    - `largest_error` (): max |observed − expected| over the bins of all styles that hold 1 % of the
      examples or more. Noise alone keeps it above 0: compare it with the oracle's.

    Args:
        threshold: the IoU with its reference that a sample has to exceed.
        num_styles: A.

    Raises:
        UserError: at `update`, another number of references.
    """

    counts: Tensor
    expected: Tensor
    observed: Tensor

    def __init__(self, threshold: float, num_styles: int) -> None:
        super().__init__((num_styles + 1,))
        self.threshold, self.num_styles = threshold, num_styles
        zeros = torch.zeros(num_styles, NUM_BINS, dtype=torch.float64)
        for name in ("counts", "expected", "observed"):
            self.add_state(name, zeros.clone(), dist_reduce_fx="sum")

    def update(  # type: ignore[override]  # what the shares are made from, not the shares
        self, samples: Tensor, references: Tensor, probabilities: Tensor
    ) -> None:
        if references.shape[1] != self.num_styles:
            raise UserError(
                f"num_styles={self.num_styles}, but there are {references.shape[1]} references"
            )
        share, none = shares(samples, references, probabilities, self.threshold)
        super().update(torch.cat([share, none.unsqueeze(1)], 1))
        bins = rounded(probabilities.double() * NUM_BINS).long().clamp(max=NUM_BINS - 1)
        members = F.one_hot(bins, NUM_BINS).double()
        self.counts += members.sum(0)
        self.expected += (members * probabilities[..., None]).sum(0)
        self.observed += (members * share[..., None]).sum(0)

    def compute(self) -> dict[str, Tensor]:
        moments = super().compute()
        mean, error = moments["mean"], moments["standard_error"]
        expected, observed = self.expected / self.counts, self.observed / self.counts
        differences = (observed - expected).abs()
        return {
            "expected": self.expected.sum(1) / self.count,
            "observed": mean[:-1],
            "observed_standard_error": error[:-1],
            "none": mean[-1],
            "none_standard_error": error[-1],
            "counts": self.counts,
            "expected_per_bin": expected,
            "observed_per_bin": observed,
            "largest_error": differences.where(self.counts >= FEW * self.count, 0.0).max(),
        }
