"""Files: written whole or not at all, arrays and names with values in them."""

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cvae.errors import UserError

Place = Sequence[str]  # nested names
_LEFTOVER = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp")


def write_atomically(
    path: Path, content: bytes | memoryview, before: Callable[[], None] | None = None
) -> None:
    """Write a file that is there whole or not at all, whoever else writes it, whatever happens.

    Args:
        path: of the file.
        content: of the file.
        before: called when the content is safe on the disk, just before it replaces the old one.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with _refused(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if before:
            before()  # what it cannot do is not about this file
        with _refused(path):
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # gone if all went well
            temporary.unlink()


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error.strerror}): "
            "free some space or choose another folder"
        ) from error


def written(path: Path) -> int | None:
    """When a file was last written, in nanoseconds; None if there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None


def read_json(path: Path) -> Mapping[str, Any]:
    """The names and values of a JSON file.

    Raises:
        UserError: it holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} does not hold names and values")
    return content


def number_at(content: Any, place: Place, source: Path | str) -> float | None:
    """The number at a place in nested names, None where there is none.

    Raises:
        UserError: there is something else.
    """
    for name in place:
        if content is None:
            return None
        if not isinstance(content, Mapping):
            raise UserError(f"{source}: {'/'.join(place)} is not a number")
        content = content.get(name)
    if content is None:
        return None
    try:
        if isinstance(content, bool | str):
            raise TypeError
        return float(content)
    except (TypeError, OverflowError) as error:
        raise UserError(f"{source}: {'/'.join(place)} is not a number") from error


def npz(arrays: Mapping[str, Tensor]) -> bytes:
    """The content of a compressed NPZ file with an array a name."""
    buffer = BytesIO()
    np.savez_compressed(buffer, **{name: values.numpy() for name, values in arrays.items()})  # type: ignore[arg-type]
    return buffer.getvalue()


def remove_leftovers(folder: Path) -> None:
    """Remove what `write_atomically` left in a folder when it was killed; nobody may write now."""
    for file in folder.glob(".*.tmp"):
        if _LEFTOVER.fullmatch(file.name):
            file.unlink(missing_ok=True)
