import gzip
import hashlib
import io
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cvae.data.idx import decode, encode
from cvae.data.source import MNIST, SHAPES
from cvae.errors import UserError

SHAPE = (7, 5, 3)
PATH = Path("some folder") / "digits-idx3-ubyte"


def example() -> Tensor:
    draws = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, SHAPE, dtype=torch.uint8, generator=draws)


@pytest.mark.parametrize("shape", [(4,), SHAPE, (1, 28, 28)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_what_is_encoded_is_decoded(shape: tuple[int, ...], pack: Callable[[bytes], bytes]) -> None:
    draws = torch.Generator().manual_seed(4)
    array = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws)
    read = decode(pack(encode(array)), shape, PATH)
    assert read.dtype == torch.uint8
    torch.testing.assert_close(read, array)


def test_the_layout_is_the_one_of_the_format() -> None:
    expected = bytes.fromhex("00000802 00000002 00000003") + bytes([1, 2, 3, 250, 251, 252])
    array = torch.tensor([[1, 2, 3], [250, 251, 252]], dtype=torch.uint8)
    assert encode(array) == expected
    turned = torch.tensor([[1, 250], [2, 251], [3, 252]], dtype=torch.uint8).T
    assert encode(turned) == expected, "an array that is not contiguous"


@pytest.mark.parametrize("stem", SHAPES)
def test_mnist_encodes_to_its_official_files(mnist_root: str, stem: str) -> None:
    path = MNIST()._find(Path(mnist_root), stem)
    assert path is not None
    encoded = encode(decode(path.read_bytes(), SHAPES[stem], path))
    assert hashlib.md5(encoded).hexdigest() == MNIST().plain_md5[stem]


def plain(shape: tuple[int, ...] = SHAPE, kind: int = 0x08) -> bytes:
    size = int(torch.tensor(shape).prod())
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + bytes(size)


def damaged(position: int) -> bytes:
    """A gzip file of noise, which hardly compresses, with one byte altered."""
    content = bytearray(gzip.compress(encode(example())))
    content[position] ^= 0xFF
    return bytes(content)


FAULTS: dict[str, bytes] = {
    "empty file": b"",
    "cut short in the header": plain()[:10],
    "cut short": plain()[:-1],
    "extra bytes": plain() + b"\0",
    "signed bytes": plain(kind=0x09),
    "wrong magic": b"\0\1" + plain()[2:],
    "wrong count": plain((8, 5, 3)),
    "fewer dimensions": plain((35, 3)),
    "more dimensions": plain((7, 5, 3, 1)),
    "not IDX at all": b"<html>" + bytes(200),
    "gzip, cut short in the header": gzip.compress(plain())[:5],
    "gzip, cut short": gzip.compress(encode(example()))[:-30],
    "gzip, cut short in the checksum": gzip.compress(plain())[:-1],
    "gzip, altered": damaged(60),
    "gzip, altered checksum": damaged(-8),
    "gzip, unknown method": damaged(2),
    "gzip, garbage": b"\x1f\x8b\x08" + bytes(range(7, 250)),
    "gzip, garbage behind it": gzip.compress(plain()) + b"garbage",
    "gzip of another count": gzip.compress(plain((8, 5, 3))),
    "gzip of extra bytes": gzip.compress(plain() + b"\0"),
    "gzip of nothing": gzip.compress(b""),
    "gzip of a gzip": gzip.compress(gzip.compress(plain())),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_refused_in_one_line_that_names_it(fault: str) -> None:
    with pytest.raises(UserError) as refusal:
        decode(FAULTS[fault], SHAPE, PATH)
    assert str(PATH) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_gzip_bomb_is_not_unpacked() -> None:
    size = 100 * 2**20
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        file.write(plain())
        for _ in range(100):
            file.write(bytes(2**20))
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            decode(packed.getvalue(), SHAPE, PATH)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 50
