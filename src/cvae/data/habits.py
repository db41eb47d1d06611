"""How simulated annotators draw a digit: rules without any randomness.

The four habits are those of Zhang et al. 2020, arXiv:2007.15963, who simulate annotators on MNIST
as well; the rules are ours. A digit is a mask where its grey level is above one half.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

Masks = NDArray[np.bool_]
INK = 127  # the largest grey level that is no ink
PERIOD, WIDTH = 9.0, 2.5  # pixels from gap to gap, and of a gap


def faithful(digits: Tensor) -> Masks:
    """The digit itself."""
    return (digits > INK).numpy()


def thin(digits: Tensor) -> Masks:
    """The digit worn away by half a pixel: erosion by 3x3 at twice its size, read at half of it."""
    return _halved(ndimage.minimum_filter(_doubled(digits), (1, 3, 3)))


def thick(digits: Tensor) -> Masks:
    """The digit grown by a pixel in each direction: dilation by a cross of 3x3."""
    cross = ndimage.generate_binary_structure(2, 1)[None]
    return ndimage.binary_dilation(faithful(digits), cross)


def fractured(digits: Tensor) -> Masks:
    r"""The digit with gaps where lines cross it, which fall like a \ and pass beside its centre.

    Strokes mostly stand or lean like a /, so that the lines cut across them.
    """
    down, right = _from_centre(digits)
    along = (right - down) / np.sqrt(2)
    gap = np.abs(along % PERIOD - PERIOD / 2) < WIDTH / 2
    return faithful(digits) & ~gap


HABITS: Mapping[str, Callable[[Tensor], Masks]] = {
    "faithful": faithful,
    "thin": thin,
    "thick": thick,
    "fractured": fractured,
}


def slant(digits: Tensor) -> Tensor:
    """How far a digit (N, 28, 28) leans to the right as it rises, pixels a pixel, (N,).

    −μ₁₁/μ₀₂ of its central moments: the shear that would set it upright.
    """
    down, right = _from_centre(digits)
    ink = digits.numpy().astype(np.float32)
    covariance, variance = ((ink * product).sum((1, 2)) for product in (down * right, down * down))
    return torch.from_numpy(-covariance / np.maximum(variance, 1e-9))


def _from_centre(digits: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows below and columns right of each digit's centre of mass, (N, 28, 28)."""
    ink = digits.numpy().astype(np.float32)
    rows, columns = np.mgrid[: ink.shape[1], : ink.shape[2]]
    total = np.maximum(ink.sum((1, 2), keepdims=True), 1)
    down, right = (
        axis - (ink * axis).sum((1, 2), keepdims=True) / total for axis in (rows, columns)
    )
    return down, right


def _doubled(digits: Tensor) -> Masks:
    """The mask of a digit drawn twice as large, (N, 56, 56)."""
    large = F.interpolate(digits.unsqueeze(1).float(), scale_factor=2, mode="bilinear")
    return (large.squeeze(1) > INK).numpy()


def _halved(masks: Masks) -> Masks:
    """Pixels of which at least half are in the mask of twice the size."""
    n, height, width = masks.shape
    return masks.reshape(n, height // 2, 2, width // 2, 2).mean((2, 4)) >= 0.5
