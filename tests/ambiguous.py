"""Small inputs with several references, and masks as sets of pixels to compute with by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

Pixels = frozenset[int]
HALF, N, A = 7, 5, 4
SIDE, OFTEN = 8, [0.75, 0.25]  # of squares


def ambiguous(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Samples (14, 5, 3, 3), references (14, 4, 3, 3) and probabilities, with all that is awkward.

    Masks are empty, references are the same or impossible, and samples are references or near.
    """
    draws = torch.Generator().manual_seed(seed)
    references = torch.rand(2 * HALF, A, 3, 3, generator=draws) < 0.5
    references[:4, 1] = references[:4, 0]
    references[2:6, 2] = False
    references[5] = False
    probabilities = torch.rand(2 * HALF, A, generator=draws)
    probabilities[::3, 0] = 0
    probabilities[1::3, 2:] = 0
    probabilities /= probabilities.sum(1, keepdim=True)
    chosen = torch.randint(A, (2 * HALF, N), generator=draws)
    samples = references[torch.arange(2 * HALF)[:, None], chosen]
    samples = samples ^ (torch.rand(samples.shape, generator=draws) < 0.15)
    samples[4:6, :3] = False
    return samples, references, probabilities


def sets(masks: Tensor) -> list[list[Pixels]]:
    """Masks (B, N, …) as sets of pixels."""
    return [[frozenset(m.flatten().nonzero().flatten().tolist()) for m in row] for row in masks]


def overlap(a: Pixels, b: Pixels) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


def mask(*rows: str) -> Tensor:
    """A picture in which # is a pixel of the mask."""
    return torch.tensor([[pixel == "#" for pixel in row] for row in rows])


def updated(metric: Metric, batch: Sequence[Tensor], sizes: Sequence[int]) -> Metric:
    for part in zip(*(tensor.split(list(sizes)) for tensor in batch), strict=True):
        metric.update(*part)
    return metric


def joined(first: Metric, second: Metric) -> dict[str, Any]:
    """What two processes compute, each with a share of the examples."""
    for name, reduction in first._reductions.items():
        both = torch.stack([getattr(first, name), getattr(second, name)])
        setattr(first, name, reduction(both))
    return first.compute()


def squares(count: int, seed: int) -> dict[str, np.ndarray]:
    """Noisy squares; one annotator draws them as they are, the other without their middle."""
    draws = np.random.default_rng(seed)
    masks = np.zeros((count, 2, SIDE, SIDE), np.uint8)
    for mask in masks:
        row, column = draws.integers(0, SIDE - 4, 2)
        mask[:, row : row + 5, column : column + 5] = 1
        mask[1, row + 1 : row + 4, column + 1 : column + 4] = 0
    noise = draws.integers(0, 60, (count, SIDE, SIDE))
    images = (noise + 150 * masks[:, 0]).astype(np.uint8)
    return {"images": images, "references": masks, "probabilities": np.array([OFTEN] * count)}
