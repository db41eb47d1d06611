"""From grey pixels to 0/1 pixels, on bytes: images stay uint8 and ink stays 255."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

Binarize = Literal["dynamic", "static", "threshold", "none"]


def uniform_bytes(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Uniform draws out of 0 … 254, on the generator's device."""
    return torch.randint(
        0, 255, tuple(shape), dtype=torch.uint8, device=generator.device, generator=generator
    )


def binarize(images: Tensor, uniform: Tensor) -> Tensor:
    """Each pixel becomes 255 with probability byte / 255 and 0 otherwise, uint8 of any shape.

    A uniform byte out of 0 … 254 is below a byte b in exactly b cases of 255.
    """
    return ink(uniform < images)


def ink(mask: Tensor) -> Tensor:
    """255 where the mask holds and 0 elsewhere, uint8."""
    return mask.to(torch.uint8) * 255


def _draw_once(images: Tensor, generator: torch.Generator) -> Tensor:
    return binarize(images, uniform_bytes(images.shape, generator))


# What is done once to images that keep their pixels for the whole run. For `dynamic` these are
# the validation and test images alone; its training images are drawn afresh at each access.
ONCE: Mapping[Binarize, Callable[[Tensor, torch.Generator], Tensor]] = {
    "dynamic": _draw_once,
    "static": _draw_once,
    "threshold": lambda images, _: ink(images > 127),
    "none": lambda images, _: images,
}
