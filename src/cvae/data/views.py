"""Views: what of an image and its label is the condition x, and what is the modelled y."""

from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from annotated_types import Len
from torch import Tensor
from torch.nn import functional as F

from cvae.data.source import NUM_CLASSES
from cvae.ranges import Size

SHAPE = (28, 28)  # of an image


@runtime_checkable
class View(Protocol):
    """What the program asks of a view of the data.

    Attributes:
        x_shape: of one condition.
        y_shape: of what is modelled of one example.
        mask: whether y is 0 or 1 by its nature, whatever the pixels of the images are.
    """

    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    mask: bool

    def __call__(self, images: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, …, H, W) and what is beside them, uint8, to x (B, *x_shape), y (B, *y_shape).

        Beside an image is its label, (B,), or what somebody drew of it, (B, H, W).
        """
        ...

    def picture(self, x: Tensor, y: Tensor) -> Tensor:
        """The full image that x and y make together, (…, 1, H, W)."""
        ...

    def showcase(self, x: Tensor) -> Tensor:
        """Conditions worth drawing samples for, some of the given ones or others."""
        ...

    def condition(self, x: Tensor) -> Tensor | None:
        """x itself as a picture, (B, 1, H, W); None where it is none."""
        ...


def is_picture(view: View) -> bool:
    """Whether x is an image or a part of one: it can be seen, but neither named nor mixed."""
    return view.condition(torch.zeros(1, *view.x_shape)) is not None


def shows_x(view: View) -> bool:
    """Whether x is a part of the picture that x and y make together."""
    y = torch.zeros(1, *view.y_shape)
    first, second = (view.picture(make(1, *view.x_shape), y) for make in (torch.zeros, torch.ones))
    return not torch.equal(first, second)


class Label:
    """x is the label as a one-hot vector, y is the whole image.

    Attributes:
        x_shape: of one condition.
        y_shape: of one modelled image.
    """

    x_shape = (NUM_CLASSES,)
    y_shape = (1, 28, 28)
    mask = False

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

    def condition(self, x: Tensor) -> None:
        """A label is no picture."""


class Quadrants:
    """x is the observed quadrants of an image, y the vector of the missing pixels, nothing else.

    One observed quadrant is the bottom left, two are the left half, three all but the bottom right,
    as in Pyro's example of Sohn et al. 2015, section 5.1.

    Args:
        observed: how many quadrants x has.

    Attributes:
        x_shape: of one condition.
        y_shape: of one example's missing pixels.
    """

    mask = False

    def __init__(self, observed: Literal[1, 2, 3]) -> None:
        height, width = SHAPE
        rows, columns = torch.arange(height).unsqueeze(1), torch.arange(width)
        bottom, left = rows >= height // 2, columns < width // 2
        seen = {1: bottom & left, 2: left.expand(SHAPE), 3: left | ~bottom}[observed].flatten()
        self._x, self._y = seen.nonzero().flatten(), (~seen).nonzero().flatten()
        self.x_shape, self.y_shape = (len(self._x),), (len(self._y),)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 images (B, 28, 28) to observed pixels (B, |x|) and missing ones (B, |y|)."""
        pixels = images.flatten(1).float() / 255
        return pixels[:, self._x.to(images.device)], pixels[:, self._y.to(images.device)]

    def picture(self, x: Tensor, y: Tensor) -> Tensor:
        """The full image that x and y make together, (…, 1, 28, 28), for y of (…, B, |y|)."""
        pixels = y.new_empty(*y.shape[:-1], len(self._x) + len(self._y))
        pixels[..., self._x.to(y.device)] = x.to(y).expand(*y.shape[:-1], -1)
        pixels[..., self._y.to(y.device)] = y
        return pixels.unflatten(-1, (1, *SHAPE))

    def showcase(self, x: Tensor) -> Tensor:
        """The given conditions themselves."""
        return x

    def condition(self, x: Tensor) -> Tensor:
        """The observed pixels, the missing ones half grey, (B, 1, 28, 28)."""
        return self.picture(x, x.new_full((len(x), *self.y_shape), 0.5))


class Segmentation:
    """x is an image, y the mask that somebody drew of it.

    Args:
        shape: channels, height and width of the images.

    Attributes:
        x_shape: of one image.
        y_shape: of one mask.
    """

    mask = True

    def __init__(self, shape: Annotated[list[Size], Len(3, 3)]) -> None:
        self.x_shape, self.y_shape = tuple(shape), (1, *shape[1:])

    def __call__(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 images (B, C, H, W) and masks (B, H, W) of 0 and 1 to x in [0, 1] and y."""
        return images.float() / 255, masks.unsqueeze(1).float()

    def picture(self, x: Tensor, y: Tensor) -> Tensor:
        """The mask, (…, 1, H, W)."""
        return y

    def showcase(self, x: Tensor) -> Tensor:
        """The given conditions themselves."""
        return x

    def condition(self, x: Tensor) -> Tensor:
        """The image in grey, (B, 1, H, W)."""
        return x.mean(1, keepdim=True)
