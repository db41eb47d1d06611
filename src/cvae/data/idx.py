"""The IDX format of MNIST's files, plain or gzipped, read with care."""

import gzip
import io
import struct
import zlib
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from cvae.errors import UserError

_UBYTE = 0x08


def encode(array: Tensor) -> bytes:
    """The bytes of an IDX file that holds a uint8 array."""
    header = struct.pack(f">HBB{array.ndim}I", 0, _UBYTE, array.ndim, *array.shape)
    return header + array.numpy().tobytes()


def decode(content: bytes, shape: tuple[int, ...], path: Path) -> Tensor:
    """The uint8 array in the bytes of an IDX file, plain or gzipped.

    Args:
        content: the file's bytes.
        shape: what it must hold.
        path: named in errors.

    Raises:
        UserError: the bytes are cut short, damaged, or of another kind or shape.
    """
    header = struct.pack(f">HBB{len(shape)}I", 0, _UBYTE, len(shape), *shape)
    expected = len(header) + prod(shape)
    plain = content
    if content[:2] == b"\x1f\x8b":
        plain = _gunzip(content, expected, path)
    if plain[: len(header)] != header:
        raise UserError(f"{path}: not an IDX file of {_words(shape)} unsigned bytes: replace it")
    if len(plain) != expected:
        raise UserError(
            f"{path}: holds {len(plain)} bytes where {_words(shape)} take {expected}: "
            "it is cut short or altered, replace it"
        )
    return torch.frombuffer(bytearray(plain[len(header) :]), dtype=torch.uint8).reshape(shape)


def _gunzip(content: bytes, expected: int, path: Path) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            return file.read(expected + 1)  # no more: a small file may unpack to gigabytes
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged gzip file ({error}): replace it") from error


def _words(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)
