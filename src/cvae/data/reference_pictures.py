"""Images and references from PNG files, a folder an example."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cvae.data.splits import Split
from cvae.errors import UserError

IMAGE = "image"
IMAGES, MASKS = ("L", "RGB"), ("1", "L")  # Pillow's names for grey, colour, black and white


def read_pictures(folder: Path) -> tuple[Split, Sequence[str]]:
    """A split, and the names of its annotators, who answer equally often.

    Raises:
        UserError: a picture is missing, cannot be read, or is of another kind or size than others;
            or something else is there.
    """
    examples = _examples(folder)
    typical = _typical(examples)
    names = _annotators(typical)
    if not names:
        raise UserError(f"{typical} has no annotator's PNG beside {IMAGE}.png")
    images, references = list[Tensor](), []
    for example in examples:
        _check_annotators(example, names, typical)
        images.append(_picture(example / f"{IMAGE}.png", IMAGES))
        if images[-1].shape != images[0].shape:
            raise _misfit(example / f"{IMAGE}.png", images[-1], images[0])
        references.append(torch.cat([_mask(example / f"{name}.png", images[0]) for name in names]))
    probabilities = torch.full((len(examples), len(names)), 1 / len(names))
    return Split(torch.stack(images), torch.stack(references), probabilities), names


def visible(folder: Path) -> list[Path]:
    """What a folder holds but for what other programs hide in it, by name."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _examples(folder: Path) -> list[Path]:
    examples = visible(folder)
    if not examples:
        raise UserError(f"{folder} has no folders: {folder}/EXAMPLE/{IMAGE}.png is expected")
    for path in examples:
        if not path.is_dir():
            raise UserError(
                f"{path} is not a folder: {folder}/EXAMPLE/{IMAGE}.png is expected, and no file "
                "beside these folders; move or remove it"
            )
    return examples


def _typical(examples: Sequence[Path]) -> Path:
    """The first example with the annotators that most have; of equally frequent ones, the most."""
    found = {example: tuple(_annotators(example)) for example in examples}
    often = Counter(found.values())
    return max(examples, key=lambda example: (often[found[example]], len(found[example])))


def _annotators(example: Path) -> list[str]:
    pngs = [path for path in visible(example) if path.suffix == ".png"]
    return sorted(path.stem for path in pngs if path.stem != IMAGE)


def _check_annotators(example: Path, names: Sequence[str], typical: Path) -> None:
    for path in visible(example):
        if path.suffix != ".png":
            raise UserError(f"{path} is not a .png: an example holds nothing else")
    found = _annotators(example)
    if missing := set(names) - set(found):
        raise UserError(f"{example / min(missing)}.png is missing")
    if more := set(found) - set(names):
        raise UserError(f"{example / min(more)}.png: {typical} has none of that name")


def _mask(path: Path, image: Tensor) -> Tensor:
    """A mask of black and white, or of 0 and 1, (1, H, W), uint8."""
    mask = _picture(path, MASKS)
    if mask.shape[1:] != image.shape[1:]:
        sides = ["x".join(map(str, one.shape[1:])) for one in (mask, image)]
        raise UserError(f"{path} has {sides[0]} pixels, and the images {sides[1]}")
    values = set(mask.unique().tolist())
    if not (values <= {0, 255} or values <= {0, 1}):
        raise UserError(f"{path} has other values than 0 and 255, or 0 and 1: it is not a mask")
    return (mask > 0).to(torch.uint8)


def _picture(path: Path, modes: Sequence[str]) -> Tensor:
    """A PNG as it is, (1 or 3, H, W), uint8."""
    if not path.is_file():
        raise UserError(f"{path} is missing")
    try:
        with Image.open(path, formats=["PNG"]) as file:
            mode, pixels = file.mode, np.array(file, dtype=np.uint8 if file.mode in modes else None)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a PNG that can be read ({error})") from error
    if mode not in modes:
        kinds = "grey or black and white" if modes == MASKS else "grey or RGB"
        raise UserError(f"{path} is of Pillow's mode {mode}: {kinds} of 8 bits is expected")
    return torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)


def _misfit(path: Path, found: Tensor, expected: Tensor) -> UserError:
    shapes = ["x".join(map(str, one.shape)) for one in (found, expected)]
    return UserError(f"{path} is {shapes[0]} (channels, height, width) beside {shapes[1]}")
