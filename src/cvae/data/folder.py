"""A folder of your own images with several references each, as PNG files or in NumPy's format."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cvae.data.annotated import Split, Splits
from cvae.errors import UserError

IMAGE = "image"
MIDDLE = 127  # a mask holds where its PNG is above


class ReferenceFolder:
    """Images and what k annotators drew of each, in `train`, `test` and, if there is one, `val`.

    A split is either

    - `SPLIT.npz` with `images` (N, H, W) or (N, H, W, C), uint8; `references` (N, k, H, W), 0 or 1;
      and, if not all annotators answer equally often, `probabilities` (N, k); or
    - `SPLIT/EXAMPLE/image.png` and beside it `ANNOTATOR.png` of each annotator, a mask where it is
      white.
    """

    num_train = None

    def has_validation(self, root: str | None) -> bool:
        """Whether there is a val."""
        return _exists(_folder(root), "val")

    def prepare(self, root: str | None) -> None:
        """Nothing is fetched."""

    def load(self, root: str | None) -> Splits:
        """Read and check all files.

        Raises:
            UserError: a file is missing or misshapen; naming it and what it should be.
        """
        folder = _folder(root)
        found = [name for name in ("train", "val", "test") if _exists(folder, name)]
        if missing := {"train", "test"} - set(found):
            raise UserError(f"{folder}: {min(missing)}.npz or {min(missing)}/ is missing")
        record = {"name": "references", "folder": str(folder)}
        splits, annotators = {}, dict[str, Sequence[str]]()
        for name in found:
            splits[name], annotators[name] = _read(folder, name)
            content = b"".join(part.numpy().tobytes() for part in splits[name])
            record[name] = f"sha256:{hashlib.sha256(content).hexdigest()}"
            if annotators[name] != annotators["train"]:
                names = [", ".join(annotators[split]) for split in (name, "train")]
                raise UserError(
                    f"{folder}: the annotators of {name} are {names[0]}, of train {names[1]}"
                )
        return Splits(splits, annotators["train"], record)


def _folder(root: str | None) -> Path:
    if root is None:
        raise UserError("data=references has no data of its own: give data.root=FOLDER")
    return Path(root)


def _exists(folder: Path, name: str) -> bool:
    return (folder / name).is_dir() or (folder / f"{name}.npz").is_file()


def _read(folder: Path, name: str) -> tuple[Split, Sequence[str]]:
    read = _read_pictures if (folder / name).is_dir() else _read_arrays
    return read(folder / name)


def _read_arrays(stem: Path) -> tuple[Split, Sequence[str]]:
    path = stem.with_name(f"{stem.name}.npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        images, references = arrays["images"], arrays["references"]
    except (OSError, ValueError, BadZipFile, KeyError) as error:
        raise UserError(f"{path}: {error}: images and references are expected") from error
    if images.ndim == 3:
        images = images[..., None]
    count, height, width, _ = images.shape if images.ndim == 4 else (0, 0, 0, 0)
    k = references.shape[1] if references.ndim == 4 else 0
    if not count or images.dtype != np.uint8:
        raise UserError(f"{path}: images are (N, H, W) or (N, H, W, C), uint8")
    if not k or references.shape != (count, k, height, width):
        raise UserError(
            f"{path}: references are (N, k, H, W), here ({count}, k, {height}, {width})"
        )
    if not np.isin(references, (0, 1)).all():
        raise UserError(f"{path}: references are 0 or 1")
    probabilities = arrays.get("probabilities", np.full((count, k), 1 / k))
    if (
        probabilities.shape != (count, k)
        or not (probabilities >= 0).all()
        or not np.allclose(probabilities.sum(1), 1, atol=1e-4)
    ):
        raise UserError(f"{path}: probabilities are ({count}, {k}), 0 or more, and add up to 1")
    split = Split(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(references.astype(np.uint8)),
        torch.from_numpy(probabilities.astype(np.float32)),
    )
    return split, [f"annotator {number + 1}" for number in range(k)]


def _read_pictures(folder: Path) -> tuple[Split, Sequence[str]]:
    examples = sorted(path for path in folder.iterdir() if path.is_dir())
    if not examples:
        raise UserError(f"{folder} has no folders: {folder}/EXAMPLE/{IMAGE}.png is expected")
    names = sorted(path.stem for path in examples[0].glob("*.png") if path.stem != IMAGE)
    if not names:
        raise UserError(f"{examples[0]} has no annotator's PNG beside {IMAGE}.png")
    first = _picture(examples[0] / f"{IMAGE}.png")
    images, references = [], []
    for example in examples:
        images.append(_picture(example / f"{IMAGE}.png", first.shape))
        masks = [
            _picture(example / f"{name}.png", (1, *first.shape[1:])) > MIDDLE for name in names
        ]
        references.append(torch.cat(masks).to(torch.uint8))
    probabilities = torch.full((len(examples), len(names)), 1 / len(names))
    return Split(torch.stack(images), torch.stack(references), probabilities), names


def _picture(path: Path, shape: Sequence[int] | None = None) -> Tensor:
    """A PNG as (1, H, W) if it is grey or has to be of one channel, else (3, H, W), uint8."""
    if not path.is_file():
        raise UserError(f"{path} is missing")
    try:
        with Image.open(path, formats=["PNG"]) as file:
            grey = file.mode in ("1", "L") if shape is None else shape[0] == 1
            pixels = np.asarray(file.convert("L" if grey else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a PNG that can be read ({error})") from error
    picture = torch.from_numpy(pixels.copy()).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)
    if shape is not None and picture.shape != torch.Size(shape):
        sizes = ["x".join(map(str, one[1:])) for one in (picture.shape, shape)]
        raise UserError(f"{path} has {sizes[0]} pixels, and others have {sizes[1]}")
    return picture
