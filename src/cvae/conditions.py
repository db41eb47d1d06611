"""Conditions that a user asks for: digits by name, or those of test images."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cvae.data.views import SHAPE, View, is_picture
from cvae.errors import UserError
from cvae.run import Run

FIRST = 10  # test images, where none are asked for


class Conditions(NamedTuple):
    """What is asked for.

    Attributes:
        x: (B, …).
        truths: by name, what x came with in the data, (B, …); none where x was made by name.
        names: one for each.
    """

    x: Tensor
    truths: Mapping[str, Tensor]
    names: Sequence[str]


def of_digits(view: View, digits: str) -> Conditions:
    """The conditions of digits by name.

    Raises:
        UserError: it is no number, or x is not a digit.
    """
    if not (digits.isascii() and digits.isdigit()):
        raise UserError(f"--digits {digits}: one or more of 0 to 9, as in --digits 2026")
    if is_picture(view):
        raise UserError(
            "x is an image here or a part of one, which no digit gives: use --images 0,1,2"
        )
    labels = torch.tensor([int(digit) for digit in digits])
    x, _ = view(torch.zeros(len(labels), *SHAPE, dtype=torch.uint8), labels)
    return Conditions(x, {}, digits)


def of_images(run: Run, images: str | None, root: str | None) -> Conditions:
    """The conditions of test images, with the pixels that `evaluate` takes.

    Args:
        run: trained.
        images: indices with commas; None for the first ten, or all where there are fewer.
        root: where the data's files are now, if not where the run had them.

    Raises:
        UserError: an index is none, or the data are not those of the run.
    """
    asked = None if images is None else _indices(images)
    # takes Lightning along, seconds that digits can do without
    from cvae.evaluation.data import split_of

    _, examples = split_of(run, "test", root)
    there = range(len(examples.y))
    chosen = list(there[:FIRST]) if asked is None else asked
    if not all(index in there for index in chosen):
        raise UserError(f"--images {images}: the test images are 0 to {there[-1]}")
    return Conditions(
        examples.x[chosen], examples.truths(chosen), [f"#{index}" for index in chosen]
    )


def _indices(images: str) -> list[int]:
    try:
        return [int(index) for index in images.split(",")]
    except ValueError as error:
        raise UserError(f"--images {images}: indices with commas, as in 3,17,42") from error
