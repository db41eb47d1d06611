"""x and y as a model and a picture are given them: a batch, or a whole split."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """The condition x (B, …), the modelled y (B, …), and each example's position in its split."""

    x: Tensor
    y: Tensor
    position: Tensor


class Examples(NamedTuple):
    """A whole split in the files' order.

    Attributes:
        x: conditions, (N, …).
        y: what is modelled, (N, …).
        labels: the class of each, (N,).
        classes: their names.
        references: what each of A annotators made of x, of whom y is one, (N, A, *y_shape), 0 or 1.
    """

    x: Tensor
    y: Tensor
    labels: Tensor
    classes: Sequence[str] = "0123456789"
    references: Tensor | None = None

    def truths(self, chosen: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """What some conditions came with: y, or what each annotator drew, (B, *y_shape)."""
        if self.references is None:
            return {"truth": self.y[chosen]}
        drawn = self.references[chosen].to(self.y).unbind(1)
        return dict(zip(self.classes, drawn, strict=True))
