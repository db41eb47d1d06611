"""Files that are there whole or not at all."""

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from cvae.errors import UserError

_LEFTOVER = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp")


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is there whole or not at all, whoever else writes it, whatever happens.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error.strerror}): "
            "free some space or choose another folder"
        ) from error
    finally:
        with suppress(OSError):  # gone if all went well
            temporary.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove what `write_atomically` left in a folder when it was killed; nobody may write now."""
    for file in folder.glob(".*.tmp"):
        if _LEFTOVER.fullmatch(file.name):
            file.unlink(missing_ok=True)
