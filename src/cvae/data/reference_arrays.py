"""Images and references from one of NumPy's .npz files; nothing in it is unpickled."""

import zlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
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
SIMILAR = 0.8  # of names: an array with such a one is not one that happens to be there


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
            f"{path}: references are (N, k, H, W), with these images (N, H, W, C) of "
            f"{images.shape} then ({count}, k, {height}, {width}), and not {references.shape}"
        )
    if references.dtype.kind not in "bui" or not np.isin(references, (0, 1)).all():
        raise UserError(
            f"{path}: references are 0 or 1, of a whole-number type, and not {_range(references)}"
        )
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
                others = [name for name in file.files if name not in NAMES]
    except DAMAGED as error:
        reason = str(error).partition(". ")[0]  # NumPy goes on with how to load it unsafely
        raise UserError(f"{path}: not an .npz file of plain arrays ({reason})") from error
    for name in others:
        if meant := get_close_matches(name, NAMES, n=1, cutoff=SIMILAR):
            raise UserError(f"{path}: did you mean {meant[0]} by {name}?")
    if odd := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise UserError(f"{path}: {odd[0]} is not an array")
    return arrays


def _images(path: Path, images: Array) -> Array:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or not images.size or images.dtype != np.uint8:
        raise UserError(
            f"{path}: images are (N, H, W) or (N, H, W, C), uint8, and not {images.shape}, "
            f"{images.dtype}"
        )
    return images


def _probabilities(path: Path, often: Array, shape: tuple[int, int]) -> Array:
    """As they are, but for rounding, which is taken out of them."""
    if often.dtype.kind not in "uif" or often.shape != shape:
        raise UserError(f"{path}: probabilities are {shape}, and not {often.shape}, {often.dtype}")
    good = (often >= 0).all(1) & np.isclose(often.sum(1), 1, rtol=0, atol=CLOSE)
    if not good.all():
        row = int(np.argmin(good))
        raise UserError(
            f"{path}: probabilities are 0 or more and add up to 1, and not {often[row].tolist()}, "
            f"those of example {row}"
        )
    exact: Array = often / often.sum(1, keepdims=True, dtype=np.float64)
    return exact


def _range(numbers: Array) -> str:
    if numbers.dtype.kind not in "buif":
        return str(numbers.dtype)
    return f"{numbers.dtype} from {numbers.min()} to {numbers.max()}"
