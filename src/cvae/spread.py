"""Metrics where one input has several references: do the samples spread as the references do?

Throughout, samples are N boolean masks of each example, (B, N, …), references are its A boolean
masks, (B, A, …), with as many pixels, and probabilities (B, A) are those of its references: they
add up to one, and some may be zero. All numbers have no unit.
"""

from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cvae.errors import UserError
from cvae.masks import iou, rounded
from cvae.metrics import Moments


def energy_distance(
    samples: Tensor, references: Tensor, probabilities: Tensor, diagonal: bool
) -> Tensor:
    """GED² = 2 E d(S, Y) − E d(S, S′) − E d(Y, Y′) of each example, (B,), d = 1 − IoU; 0 is best.

    S, S′ are independent samples, Y, Y′ independent references; means over references are exact:
    Σₐ pₐ d(·, yₐ). With the diagonal the oracle does not reach 0 but E d(Y, Y′) / N.

    Source: Székely and Rizzo 2013, "Energy statistics"; Kohl et al. 2018, arXiv:1806.05034, whose
    published code counts the diagonal.

    Args:
        samples: N masks of each example.
        references: A masks.
        probabilities: of the references.
        diagonal: what E d(S, S′) is a mean over. True, the V-statistic: all N² pairs, though a
            sample is at distance 0 from itself: E d(S, S′) comes out low by the factor (N − 1) / N,
            GED² high. False, the U-statistic: the N (N − 1) pairs of different samples, without
            bias, so one example's number may be negative.

    Raises:
        UserError: one sample and no diagonal: there is no pair of samples.
    """
    num, weights = samples.shape[1], probabilities.double()
    if not diagonal and num < 2:
        raise UserError(f"GED² without its diagonal needs 2 samples of an input or more, not {num}")
    cross = torch.einsum("bna,ba->b", 1 - iou(samples, references), weights) / num
    own = (1 - iou(samples, samples)).sum((1, 2)) / (num * (num if diagonal else num - 1))
    truth = torch.einsum("ba,bac,bc->b", weights, 1 - iou(references, references), weights)
    return 2 * cross - own - truth


def matched_iou(samples: Tensor, references: Tensor, probabilities: Tensor) -> Tensor:
    """The mean IoU of N samples matched one to one with N references so that it is largest, (B,).

    Reference a is there about N pₐ times: ⌊N pₐ⌋, and those with the largest remainders once more,
    ties to the first. 1 is best.

    Source: Kohl et al. 2019, arXiv:1905.13077, there for references equally likely.
    """
    num = samples.shape[1]
    filled = _slots(probabilities, num)[:, None].expand(-1, num, -1)
    tables = iou(samples, references).gather(2, filled).cpu().numpy()
    means = [table[linear_sum_assignment(table, maximize=True)].mean() for table in tables]
    return torch.tensor(means, dtype=torch.float64, device=samples.device)


def _slots(probabilities: Tensor, num: int) -> Tensor:
    """References in N slots by largest remainder, ties to the first: (B, A) to indices (B, N)."""
    quotas = rounded(probabilities.double() * num)
    counts = quotas.floor()
    order = (quotas - counts).argsort(descending=True, stable=True)
    missing = num - counts.sum(1, keepdim=True)
    counts += order.argsort() < missing
    indices = torch.arange(counts.shape[1], device=counts.device).expand_as(counts)
    return indices.flatten().repeat_interleave(counts.long().flatten()).view(-1, num)


def majority_dice(samples: Tensor, references: Tensor, probabilities: Tensor) -> Tensor:
    """Dice 2 |a ∩ b| / (|a| + |b|) of samples' and references' majorities, (B,).

    A pixel belongs to the samples' majority if more than half of them have it, and to the
    references' if Σₐ pₐ yₐ > ½: one half exactly is not a majority. Both empty are 1.
    """
    ours = 2 * samples.flatten(2).sum(1) > samples.shape[1]
    votes = torch.einsum("ba,bap->bp", probabilities.double(), references.flatten(2).double())
    theirs = rounded(votes) > 0.5
    both, sizes = (ours & theirs).sum(1).double(), ours.sum(1) + theirs.sum(1)
    return torch.where(sizes > 0, 2 * both / sizes, 1.0)


def oracle(
    references: Tensor, probabilities: Tensor, num_samples: int, generator: torch.Generator
) -> Tensor:
    """Independent samples from the references: they score what the true distribution scores.

    Args:
        references: (B, A, …).
        probabilities: of the references, (B, A).
        num_samples: N.
        generator: of the draws; its device decides where they are drawn.

    Returns:
        (B, N, …), like the references.
    """
    weights = probabilities.to(generator.device)
    drawn = weights.multinomial(num_samples, replacement=True, generator=generator)
    rows = torch.arange(len(references), device=references.device)[:, None]
    return references[rows, drawn.to(references.device)]


class Spread(Moments):
    """Moments over examples of one number, made from an example's samples and references.

    Args:
        number: of each example, (B,), from samples, references and probabilities.
    """

    def __init__(self, number: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.number = number

    def update(  # type: ignore[override]  # what the number is made from, not the number
        self, samples: Tensor, references: Tensor, probabilities: Tensor
    ) -> None:
        super().update(self.number(samples, references, probabilities))
