"""Matrices of 8-bit numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvae.errors import UserError

LARGEST = 127  # of the 8-bit numbers in use: as many below zero as above


@dataclass(frozen=True)
class Quantized:
    """W ≈ Ŵ = scale · values, a scale for each output unit, so that |W − Ŵ| ≤ scale / 2.

    Attributes:
        values: int8 in [−127, 127], (out, in).
        scale: float32, max |W| / 127 of each row, (out,).
    """

    values: Tensor
    scale: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> "Quantized":
        """The nearest of such matrices to W (out, in) with these scales.

        Raises:
            UserError: a number of W is not finite.
        """
        if not weight.isfinite().all():
            raise UserError("a weight of the model is not finite")
        largest = weight.abs().amax(1)
        scale = torch.where(largest > 0, largest, 1.0) / LARGEST  # a row of zeros needs any
        return cls((weight / scale.unsqueeze(1)).round().to(torch.int8), scale)

    @property
    def weight(self) -> Tensor:
        """Ŵ, (out, in)."""
        return self.scale.unsqueeze(1) * self.values
