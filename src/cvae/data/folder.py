"""A folder of your own images with several references each, as PNG files or in NumPy's format."""

from collections.abc import Sequence
from pathlib import Path

from cvae.data.reference_arrays import read_arrays
from cvae.data.reference_pictures import read_pictures, visible
from cvae.data.source import HOW_NAMED
from cvae.data.splits import PARTS, Split, Splits, digest
from cvae.errors import UserError


class ReferenceFolder:
    """Images and what k annotators drew of each, in `train`, `test` and, if there is one, `val`.

    A split is either

    - `SPLIT.npz` with `images` (N, H, W) or (N, H, W, C), uint8; `references` (N, k, H, W), 0 or 1;
      and, if not all annotators answer equally often, `probabilities` (N, k); or
    - `SPLIT/EXAMPLE/image.png` and beside it `ANNOTATOR.png` of each annotator, a mask of black and
      white.
    """

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
        found = [name for name in PARTS if _exists(folder, name)]
        for name in ("train", "test"):
            if name not in found:
                raise UserError(f"{folder}: {name}.npz or {name}/ is missing")
        for path in visible(folder):
            name = path.name if path.is_dir() else path.stem
            if (path.is_dir() or path.suffix == ".npz") and name not in PARTS:
                raise UserError(f"{path} is not one of {', '.join(PARTS)}: rename or move it")
        record = {"name": "references", "folder": str(folder)}
        splits, annotators = {}, dict[str, Sequence[str]]()
        for name in found:
            splits[name], annotators[name] = _read(folder, name)
            record[name] = f"sha256:{digest(splits[name])}"
            _check_alike(folder, "annotators", name, annotators[name], annotators["train"])
            shape, others = (splits[split].images.shape[1:] for split in (name, "train"))
            _check_alike(folder, "channels, height and width", name, shape, others)
        return Splits(splits, annotators["train"], record)


def _folder(root: str | None) -> Path:
    if root is None:
        raise UserError("data=references has no data of its own: give data.root=FOLDER")
    folder = Path(root)
    if not folder.is_dir():
        raise UserError(f"data.root={root} is not a folder: name one that is, {HOW_NAMED}")
    return folder


def _exists(folder: Path, name: str) -> bool:
    return (folder / name).is_dir() or (folder / f"{name}.npz").is_file()


def _check_alike(
    folder: Path, what: str, name: str, found: Sequence[object], expected: Sequence[object]
) -> None:
    if found != expected:
        said = [", ".join(map(str, values)) for values in (found, expected)]
        raise UserError(f"{folder}: the {what} of {name} are {said[0]}, of train {said[1]}")


def _read(folder: Path, name: str) -> tuple[Split, Sequence[str]]:
    pictures, arrays = folder / name, folder / f"{name}.npz"
    if pictures.is_dir() and arrays.is_file():
        raise UserError(f"{folder} has both {name}/ and {name}.npz: remove one of them")
    return read_pictures(pictures) if pictures.is_dir() else read_arrays(arrays)
