"""Views: what of an image and its label is the condition x, and what is the modelled y."""

from typing import Protocol, runtime_checkable

from torch import Tensor
from torch.nn import functional as F

from cvae.data.source import NUM_CLASSES


@runtime_checkable
class View(Protocol):
    """What the program asks of a view of the data.

    Attributes:
        x_shape: of one condition.
        y_shape: of what is modelled of one example.
    """

    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, H, W) and labels (B,), uint8, to x (B, *x_shape) and y (B, *y_shape)."""
        ...

    def picture(self, x: Tensor, y: Tensor) -> Tensor:
        """The full image that x and y make together, (…, 1, H, W)."""
        ...

    def showcase(self, x: Tensor) -> Tensor:
        """Conditions worth drawing samples for, some of the given ones or others."""
        ...


class Label:
    """x is the label as a one-hot vector, y is the whole image.

    Attributes:
        x_shape: of one condition.
        y_shape: of one modelled image.
    """

    x_shape = (NUM_CLASSES,)
    y_shape = (1, 28, 28)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 images (B, 28, 28) and labels (B,) to x (B, 10) and y (B, 1, 28, 28) in [0, 1]."""
        x = F.one_hot(labels.long(), NUM_CLASSES).float()
        return x, images.unsqueeze(1).float() / 255

    def picture(self, x: Tensor, y: Tensor) -> Tensor:
        """The full image that x and y make together: y itself, (…, 1, 28, 28)."""
        return y

    def showcase(self, x: Tensor) -> Tensor:
        """Ten conditions worth drawing samples for: the digits 0 to 9 in order, (10, 10).

        Args:
            x: conditions of the data, which other views choose from.
        """
        return F.one_hot(x.new_tensor(range(NUM_CLASSES)).long(), NUM_CLASSES).to(x)
