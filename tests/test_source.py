import gzip
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cvae.data import source as sources
from cvae.data.fetch import Files
from cvae.data.idx import encode
from cvae.data.mirror import Mirror
from cvae.data.source import MNIST, SHAPES, Arrays, FashionMNIST, Source
from cvae.data.wheel import MNIST_WHEEL
from cvae.errors import UserError

TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"


def refused(source: Source, root: str | None) -> str:
    """The one line with which the source refuses to load."""
    with pytest.raises(UserError) as refusal:
        source.load(root)
    message = str(refusal.value)
    assert "\n" not in message
    return message


def linked(mnist_root: str, folder: Path) -> Path:
    """A folder of links to the four official files."""
    folder.mkdir(parents=True)
    for stem in SHAPES:
        official = MNIST()._find(Path(mnist_root), stem)
        assert official is not None
        (folder / official.name).symlink_to(official)
    return folder


def replace(path: Path, change: Callable[[bytes], bytes]) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(change(content))


def alter(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def cut(content: bytes) -> bytes:
    return content[:-100]


@pytest.fixture(scope="module")
def official(mnist_root: str) -> Arrays:
    return MNIST().load(mnist_root)


@pytest.fixture
def default_folder(mnist_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MNIST's official files where a run without `data.root` looks for them."""
    monkeypatch.chdir(tmp_path)
    linked(mnist_root, tmp_path / "data" / "mnist")
    return Path("data/mnist")


def test_mnist_is_mnist(official: Arrays) -> None:
    arrays = official[:4]
    assert [tuple(array.shape) for array in arrays] == list(SHAPES.values())
    assert {array.dtype for array in arrays} == {torch.uint8}
    assert official.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert official.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert official.train_labels.bincount().tolist() == counts
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert official.test_labels.bincount().tolist() == counts
    mean, deviation = 0.1307, 0.3081  # the usual constants for normalising MNIST
    grey = official.train_images.float() / 255
    assert (round(grey.mean().item(), 4), round(grey.std().item(), 4)) == (mean, deviation)


def test_the_record_says_what_was_read_and_how_it_was_verified(
    official: Arrays, default_folder: Path, mnist_root: str
) -> None:
    record = MNIST().load(None).record
    assert record["name"] == "mnist"
    assert record["folder"] == str(default_folder)
    assert record["verified"] == "official checksums"
    assert official.record["folder"] == mnist_root
    assert official.record["verified"] == "magic numbers, shapes and counts"
    assert {stem: record[stem] for stem in SHAPES} == {s: official.record[s] for s in SHAPES}
    labels = hashlib.sha256(bytes(official.test_labels.tolist())).hexdigest()
    assert record[TEST_LABELS] == f"sha256:{labels}"


@pytest.mark.parametrize("change", [alter, cut])
@pytest.mark.parametrize("stem", [TEST_IMAGES, TRAIN_LABELS])
def test_a_changed_file_in_the_default_folder_is_refused(
    default_folder: Path, stem: str, change: Callable[[bytes], bytes]
) -> None:
    replace(default_folder / stem, change)
    message = refused(MNIST(), None)
    assert str(default_folder / stem) in message
    assert MNIST().plain_md5[stem] in message
    assert "delete the file" in message


def test_a_gzipped_file_that_is_not_the_official_one_is_refused_by_default(
    default_folder: Path,
) -> None:
    packed = gzip.compress((default_folder / TEST_LABELS).read_bytes(), mtime=0)
    (default_folder / TEST_LABELS).unlink()
    (default_folder / f"{TEST_LABELS}.gz").write_bytes(packed)
    message = refused(MNIST(), None)
    assert f"{TEST_LABELS}.gz" in message
    assert MNIST().gzip_md5[TEST_LABELS] in message


def test_a_cut_file_in_a_folder_of_ones_own_is_refused(mnist_root: str, tmp_path: Path) -> None:
    folder = linked(mnist_root, tmp_path / "own")
    replace(folder / TEST_IMAGES, cut)
    message = refused(MNIST(), str(folder))
    assert str(folder / TEST_IMAGES) in message
    assert "cut short" in message


def test_a_missing_file_or_folder_is_named(mnist_root: str, tmp_path: Path) -> None:
    folder = linked(mnist_root, tmp_path / "own")
    (folder / TEST_LABELS).unlink()
    message = refused(MNIST(), str(folder))
    assert str(folder) in message
    assert TEST_LABELS in message
    assert "data.root" in message
    missing = refused(MNIST(), str(tmp_path / "nowhere"))
    assert "data.root=FOLDER" in missing
    assert "--data-root FOLDER" in missing


def test_a_folder_of_ones_own_may_hold_anything_well_formed(
    official: Arrays, mnist_root: str, tmp_path: Path
) -> None:
    folder = linked(mnist_root, tmp_path / "own")
    replace(folder / TEST_IMAGES, alter)
    arrays = MNIST().load(str(folder))
    pixels = arrays.test_images.numpy().tobytes()
    assert pixels == alter(official.test_images.numpy().tobytes())
    assert arrays.record[TEST_IMAGES] == f"sha256:{hashlib.sha256(pixels).hexdigest()}"
    assert arrays.record[TEST_IMAGES] != official.record[TEST_IMAGES]
    assert arrays.record[TEST_LABELS] == official.record[TEST_LABELS]


def test_gzipped_files_are_the_same_data(official: Arrays, mnist_root: str, tmp_path: Path) -> None:
    folder = linked(mnist_root, tmp_path / "own")
    for stem in (TRAIN_LABELS, TEST_IMAGES, TEST_LABELS):
        (folder / f"{stem}.gz").write_bytes(gzip.compress((folder / stem).read_bytes(), 1))
        (folder / stem).unlink()
    arrays = MNIST().load(str(folder))
    assert torch.equal(arrays.test_images, official.test_images)
    own = {"folder": str(folder), "fetched_from": "found in the folder"}
    assert arrays.record == official.record | own


def test_a_label_past_9_is_refused(official: Arrays, mnist_root: str, tmp_path: Path) -> None:
    folder = linked(mnist_root, tmp_path / "own")
    labels = official.train_labels.clone()
    labels[12_345] = 10
    replace(folder / TRAIN_LABELS, lambda _: encode(labels))
    message = refused(MNIST(), str(folder))
    assert str(folder) in message
    assert "label 10" in message


class Shelf:
    """A place that gives some files and counts how often it was asked."""

    def __init__(self, files: Files) -> None:
        self.files, self.asked = files, 0

    def fetch(self) -> Files:
        self.asked += 1
        return self.files


def test_preparing_fetches_into_the_default_folder_what_is_missing(
    default_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = MNIST()
    shelf = Shelf({stem: (default_folder / stem).read_bytes() for stem in SHAPES})
    monkeypatch.setattr(source, "_places", lambda: [shelf])
    source.prepare(None)
    assert shelf.asked == 0
    (default_folder / TEST_LABELS).unlink()
    source.prepare(None)
    assert shelf.asked == 1
    shutil.rmtree("data")
    source.prepare(None)
    assert shelf.asked == 2
    assert source.load(None).record["verified"] == "official checksums"


def test_preparing_leaves_a_folder_of_ones_own_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = MNIST()
    monkeypatch.setattr(sources, "first_that_works", lambda *_: pytest.fail("fetched"))
    source.prepare(str(tmp_path / "own"))
    assert list(tmp_path.iterdir()) == []


def test_each_mirror_is_asked_for_the_official_files_and_the_wheel_is_last() -> None:
    *mirrors, wheel = MNIST()._places()
    assert len(mirrors) >= 1
    assert wheel is MNIST_WHEEL
    for mirror in mirrors:
        assert isinstance(mirror, Mirror)
        assert mirror.md5 == {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        }


def test_fashion_mnist_has_its_own_mirrors_and_checksums() -> None:
    places = FashionMNIST()._places()
    assert {str(place) for place in places}.isdisjoint(map(str, MNIST()._places()))
    for mirror in places:
        assert isinstance(mirror, Mirror)
        assert mirror.md5 == {  # as its authors publish them
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        }


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_digits_are_not_taken_for_fashion_unless_the_user_says_so(
    mnist_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = linked(mnist_root, tmp_path / "data" / "fashion_mnist")
    if suffix:
        first = folder / "train-images-idx3-ubyte"
        replace(first, lambda content: gzip.compress(content, 1))
        first.rename(f"{first}.gz")
    assert f"train-images-idx3-ubyte{suffix}: MD5" in refused(FashionMNIST(), None)
    assert FashionMNIST().load(str(folder)).record["name"] == "fashion_mnist"
