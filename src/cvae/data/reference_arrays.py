"""Images and references from one of NumPy's .npz files; nothing in it is unpickled."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from cvae.data.splits import Split
from cvae.errors import UserError

Array = NDArray[Any]
NAMES = ("images", "references", "probabilities")
DAMAGED = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, BadZipFile, zlib.error)
CLOSE = 1e-4  # that probabilities add up to one


def read_arrays(path: Path) -> tuple[Split, Sequence[str]]:
    """A split, and names for its annotators, from annotator 1 on.

    Raises:
        UserError: an array is missing, or of another shape, type or range.
    """
    arrays = _load(path)
    if missing := {"images", "references"} - arrays.keys():
        raise UserError(f"{path} has no {' and no '.join(sorted(missing))}")
    images, references = _images(path, arrays["images"]), arrays["references"]
    count, height, width, _ = images.shape
    k = references.shape[1] if references.ndim == 4 else 0
    if not k or references.shape != (count, k, height, width):
        raise UserError(
            f"{path}: references are (N, k, H, W), here ({count}, k, {height}, {width})"
        )
    if references.dtype.kind not in "bui" or not np.isin(references, (0, 1)).all():
        raise UserError(f"{path}: references are 0 or 1, of a whole-number type")
    often = _probabilities(
        path, arrays.get("probabilities", np.full((count, k), 1 / k)), (count, k)
    )
    split = Split(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(references.astype(np.uint8)),
        torch.from_numpy(often.astype(np.float32)),
    )
    return split, [f"annotator {number + 1}" for number in range(k)]


def _load(path: Path) -> Mapping[str, Array]:
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, NpzFile):
                raise ValueError("one array alone")
            with file:
                arrays = {name: file[name] for name in NAMES if name in file.files}
    except DAMAGED as error:
        raise UserError(f"{path}: not an .npz file of plain arrays ({error})") from error
    if odd := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise UserError(f"{path}: {odd[0]} is not an array")
    return arrays


def _images(path: Path, images: Array) -> Array:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or not images.size or images.dtype != np.uint8:
        raise UserError(f"{path}: images are (N, H, W) or (N, H, W, C), uint8")
    return images


def _probabilities(path: Path, often: Array, shape: tuple[int, int]) -> Array:
    """As they are, but for rounding, which is taken out of them."""
    numbers = often.dtype.kind in "uif" and often.shape == shape
    if not numbers or not (often >= 0).all() or not np.allclose(often.sum(1), 1, atol=CLOSE):
        raise UserError(f"{path}: probabilities are {shape}, 0 or more, and add up to 1")
    exact: Array = often / often.sum(1, keepdims=True, dtype=np.float64)
    return exact
