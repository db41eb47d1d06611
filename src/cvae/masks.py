"""What the metrics of masks share."""

import torch
from torch import Tensor


def iou(a: Tensor, b: Tensor) -> Tensor:
    """|a ∩ b| / |a ∪ b| of all pairs of masks; 1 where both are empty.

    Args:
        a: boolean masks, (B, N, …).
        b: boolean masks, (B, M, …).

    Returns:
        (B, N, M) in float64, where equal ratios are equal numbers.

    Raises:
        TypeError: the masks are not boolean.
    """
    if a.dtype != torch.bool or b.dtype != torch.bool:
        raise TypeError(f"masks are boolean, not {a.dtype} and {b.dtype}: pass mean > 0.5")
    with torch.autocast(a.device.type, enabled=False):  # 16 bits do not count all pixels
        a, b = a.flatten(2).float(), b.flatten(2).float()
        both = (a @ b.mT).double()
        either = a.sum(2)[:, :, None] + b.sum(2)[:, None] - both
    return torch.where(either > 0, both / either, 1.0)


def rounded(values: Tensor) -> Tensor:
    """Values to five decimals in float64: what float32 made of one half is one half again."""
    return values.double().round(decimals=5)
