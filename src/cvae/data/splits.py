"""What data of several annotators are made of."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from torch import Tensor

PARTS = ("train", "val", "test")


class Split(NamedTuple):
    """A part of the data.

    Attributes:
        images: (N, C, H, W), uint8.
        references: what each annotator drew, (N, A, H, W), uint8, 0 or 1.
        probabilities: that each is the one who answers, (N, A), adding up to one.
    """

    images: Tensor
    references: Tensor
    probabilities: Tensor


class Splits(NamedTuple):
    """All that a source has.

    Attributes:
        splits: train, test and, if there is one, val.
        names: of the annotators.
        record: what the data are, with a hash of each file; where images and references are made of
            the files by computing, `made` is a hash of what comes out.
    """

    splits: Mapping[str, Split]
    names: Sequence[str]
    record: dict[str, str]


def digest(*splits: Split) -> str:
    """SHA-256 of all their shapes and bytes, in hexadecimal."""
    found = hashlib.sha256()
    for part in chain(*splits):
        found.update(f"{tuple(part.shape)}".encode())
        found.update(part.numpy().data)
    return found.hexdigest()
