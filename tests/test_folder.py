from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cvae.data.folder import ReferenceFolder
from cvae.errors import UserError

Arrays = dict[str, Any]
N, K, HEIGHT, WIDTH = 3, 2, 5, 7


def arrays(seed: int, channels: int = 3) -> Arrays:
    draws = np.random.default_rng(seed)
    return {
        "images": draws.integers(0, 256, (N, HEIGHT, WIDTH, channels), dtype=np.uint8),
        "references": draws.integers(0, 2, (N, K, HEIGHT, WIDTH), dtype=np.uint8),
    }


def write_arrays(folder: Path, split: str, content: Arrays) -> None:
    np.savez(folder / f"{split}.npz", **content)


def write_pictures(folder: Path, split: str, content: Arrays) -> None:
    pairs = zip(content["images"], content["references"], strict=True)
    for number, (image, masks) in enumerate(pairs):
        example = folder / split / f"{number:03d}"
        example.mkdir(parents=True)
        Image.fromarray(image).save(example / "image.png")
        for name, mask in zip("ab", masks, strict=True):
            Image.fromarray(mask * 255).save(example / f"{name}.png")


@pytest.mark.parametrize("write", [write_arrays, write_pictures])
def test_what_was_written_is_read(
    tmp_path: Path, write: Callable[[Path, str, Arrays], None]
) -> None:
    for seed, split in enumerate(("train", "test")):
        write(tmp_path, split, arrays(seed))
    source = ReferenceFolder()
    assert not source.has_validation(str(tmp_path))
    splits, names, record = source.load(str(tmp_path))
    assert len(names) == K
    for seed, split in enumerate(("train", "test")):
        written, read = arrays(seed), splits[split]
        assert torch.equal(read.images, torch.from_numpy(written["images"]).permute(0, 3, 1, 2))
        assert torch.equal(read.references, torch.from_numpy(written["references"]))
        assert torch.equal(read.probabilities, torch.full((N, K), 0.5))
        assert record[split].startswith("sha256:")
    assert record["train"] != record["test"]


def test_names_are_those_of_the_pictures(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_pictures(tmp_path, split, arrays(0))
    source = ReferenceFolder()
    assert source.has_validation(str(tmp_path))
    assert source.load(str(tmp_path)).names == ["a", "b"]


def test_grey_images_and_probabilities(tmp_path: Path) -> None:
    often = np.array([[0.25, 0.75]] * N)
    content = arrays(0)
    content |= {"images": content["images"][..., 0], "probabilities": often}
    for split in ("train", "test"):
        write_arrays(tmp_path, split, content)
    read = ReferenceFolder().load(str(tmp_path)).splits["test"]
    assert read.images.shape == (N, 1, HEIGHT, WIDTH)
    torch.testing.assert_close(read.probabilities.double(), torch.from_numpy(often))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((N, HEIGHT, WIDTH))}, "uint8"),
        ({"images": np.zeros((HEIGHT, WIDTH), np.uint8)}, r"\(N, H, W\)"),
        ({"images": np.array([{}], dtype=object)}, "plain arrays"),
        ({"references": np.zeros((N, HEIGHT, WIDTH), np.uint8)}, r"\(N, k, H, W\)"),
        (
            {"references": np.zeros((N, K, WIDTH, HEIGHT), np.uint8)},
            r"\(3, k, 5, 7\).*\(3, 2, 7, 5\)",
        ),
        ({"images": np.zeros((N, 3, HEIGHT, WIDTH), np.uint8)}, r"images .* of \(3, 3, 5, 7\)"),
        ({"references": np.full((N, K, HEIGHT, WIDTH), 2)}, "0 or 1.* from 2 to 2"),
        ({"references": np.full((N, K, HEIGHT, WIDTH), "1")}, "0 or 1.* not <U1"),
        ({"probabilities": np.full((N, K), 0.4)}, "add up to 1"),
        ({"probabilities": np.array([[1.5, -0.5]] * N)}, "add up to 1"),
        ({"probabilities": np.full((N, 1), 1.0)}, r"\(3, 2\)"),
        ({"probabilities": np.array([[0.5, 0.5], [0.5, np.nan], [1, 0]])}, "those of example 1"),
        ({"probability": np.full((N, K), 0.5)}, "did you mean probabilities by probability"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, change: Arrays, message: str) -> None:
    write_arrays(tmp_path, "train", arrays(0))
    write_arrays(tmp_path, "test", arrays(1) | change)
    with pytest.raises(UserError, match=message) as told:
        ReferenceFolder().load(str(tmp_path))
    assert "test.npz" in str(told.value)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("test", "test.npz or test/ is missing"),
        ("train/001/image.png", "001/image.png is missing"),
        ("train/000/b.png", "train/000/b.png is missing"),
        ("train/001/b.png", "train/001/b.png is missing"),
    ],
)
def test_files_that_are_missing(tmp_path: Path, missing: str, message: str) -> None:
    for split in ("train", "test"):
        write_pictures(tmp_path, split, arrays(0))
    path = tmp_path / missing
    path.rename(path.with_name("elsewhere")) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=message):
        ReferenceFolder().load(str(tmp_path))


def test_a_name_that_the_first_example_alone_has_is_one_too_many(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_pictures(tmp_path, split, arrays(0))
    first = tmp_path / "train" / "000"
    (first / "bob.png").write_bytes((first / "b.png").read_bytes())
    with pytest.raises(UserError, match=r"train/000/bob.png: .*train/001 has none of that name"):
        ReferenceFolder().load(str(tmp_path))


def test_of_two_examples_the_one_with_fewer_masks_lacks_one(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_pictures(tmp_path, split, {name: some[:2] for name, some in arrays(0).items()})
    (tmp_path / "train" / "000" / "b.png").unlink()
    with pytest.raises(UserError, match=r"train/000/b.png is missing"):
        ReferenceFolder().load(str(tmp_path))


def test_examples_that_no_annotator_has_seen(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_pictures(tmp_path, split, arrays(0))
    for path in tmp_path.glob("train/00[12]/[ab].png"):
        path.unlink()
    with pytest.raises(UserError, match=r"train/001 has no annotator's PNG beside image.png"):
        ReferenceFolder().load(str(tmp_path))


def test_pictures_that_do_not_fit(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_pictures(tmp_path, split, arrays(0))
    path = tmp_path / "train" / "002" / "a.png"
    Image.new("L", (WIDTH + 1, HEIGHT)).save(path)
    with pytest.raises(UserError, match=r"002/a.png has 5x8 pixels, and the images 5x7"):
        ReferenceFolder().load(str(tmp_path))
    path.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"002/a.png is not a PNG"):
        ReferenceFolder().load(str(tmp_path))


@pytest.mark.parametrize("content", [b"PK nothing", b"", b"PK\x03\x04" + bytes(40)])
def test_a_file_that_is_no_archive(tmp_path: Path, content: bytes) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"train.npz: not an .npz file"):
        ReferenceFolder().load(str(tmp_path))


def test_an_array_alone_is_no_archive(tmp_path: Path) -> None:
    for split in ("train", "test"):
        with (tmp_path / f"{split}.npz").open("wb") as file:
            np.save(file, np.zeros(3))
    with pytest.raises(UserError, match=r"train.npz: not an .npz file .*one array alone"):
        ReferenceFolder().load(str(tmp_path))


def test_other_arrays_are_not_read(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_arrays(tmp_path, split, arrays(0) | {"ids": np.array([{}], dtype=object)})
    assert len(ReferenceFolder().load(str(tmp_path)).splits) == 2


GREY16 = Image.fromarray(np.full((HEIGHT, WIDTH), 300, np.uint16))
SOFT = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH))
PALETTE = Image.new("P", (WIDTH, HEIGHT))


@pytest.mark.parametrize(
    ("name", "picture", "message"),
    [
        ("image", GREY16, "001/image.png is of Pillow's mode I;16: grey or RGB of 8 bits"),
        ("image", PALETTE, "mode P: grey or RGB"),
        ("image", SOFT, r"is 1x5x7 \(channels, height, width\) beside 3x5x7"),
        ("a", PALETTE, "mode P: grey or black and white"),
        ("a", SOFT, "has other values than 0 and 255, or 0 and 1: it is not a mask"),
        ("c", SOFT, "001/c.png: .*test/000 has none of that name"),
    ],
)
def test_pictures_of_another_kind(
    tmp_path: Path, name: str, picture: Image.Image, message: str
) -> None:
    for split in ("train", "test"):
        write_pictures(tmp_path, split, arrays(0))
    picture.save(tmp_path / "test" / "001" / f"{name}.png")
    with pytest.raises(UserError, match=message):
        ReferenceFolder().load(str(tmp_path))


def test_masks_of_0_and_1_and_of_black_and_white_are_read_as_they_are(tmp_path: Path) -> None:
    content = arrays(0)
    for split in ("train", "test"):
        write_pictures(tmp_path, split, content)
    example = tmp_path / "test" / "000"
    low, plain = (Image.fromarray(mask) for mask in content["references"][0])
    low.save(example / "a.png")
    plain.point(lambda value: 255 * value).convert("1").save(example / "b.png")
    read = ReferenceFolder().load(str(tmp_path)).splits["test"].references
    assert torch.equal(read, torch.from_numpy(content["references"]))


def test_what_is_no_part_of_the_data_is_told_and_what_is_hidden_is_not(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_pictures(tmp_path, split, arrays(0))
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    for example in (tmp_path / "train").glob("0*"):
        (example / "._a.png").touch()
    (tmp_path / "README.txt").touch()
    assert len(ReferenceFolder().load(str(tmp_path)).splits) == 2
    for other in ("validation", "val.old"):
        (tmp_path / other).mkdir()
        with pytest.raises(UserError, match=f"{other} is not one of train, val, test: rename"):
            ReferenceFolder().load(str(tmp_path))
        (tmp_path / other).rmdir()
    for stray in (tmp_path / "train" / "004.png", tmp_path / "test" / "notes.txt"):
        stray.touch()
        with pytest.raises(UserError, match=f"{stray} is not a folder: .* move or remove it"):
            ReferenceFolder().load(str(tmp_path))
        stray.unlink()
    (tmp_path / "train" / "001" / "c.jpg").touch()
    with pytest.raises(UserError, match=r"001/c.jpg is not a \.png"):
        ReferenceFolder().load(str(tmp_path))


def test_pictures_and_arrays_of_one_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_pictures(tmp_path, split, arrays(0))
    write_arrays(tmp_path, "train", arrays(0))
    with pytest.raises(UserError, match=r"has both train/ and train\.npz"):
        ReferenceFolder().load(str(tmp_path))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is not a folder: .* with --data-root FOLDER"):
        ReferenceFolder().load(str(tmp_path / "nowhere"))


def test_splits_of_other_annotators(tmp_path: Path) -> None:
    write_arrays(tmp_path, "train", arrays(0))
    write_pictures(tmp_path, "test", arrays(0))
    with pytest.raises(UserError, match="annotators of test are a, b, of train annotator 1"):
        ReferenceFolder().load(str(tmp_path))


def test_splits_of_other_shapes(tmp_path: Path) -> None:
    write_arrays(tmp_path, "train", arrays(0))
    write_arrays(tmp_path, "test", arrays(0, channels=1))
    with pytest.raises(UserError, match="height and width of test are 1, 5, 7, of train 3, 5, 7"):
        ReferenceFolder().load(str(tmp_path))


def test_a_folder_has_to_be_named() -> None:
    with pytest.raises(UserError, match=r"data\.root=FOLDER"):
        ReferenceFolder().load(None)
