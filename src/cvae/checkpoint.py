"""Checkpoint files: tensors and plain values, there whole or not at all, read with care."""

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cvae.errors import UserError
from cvae.files import write_atomically


def write_checkpoint(
    content: Mapping[str, Any], path: Path, before: Callable[[], None] | None = None
) -> None:
    """Write a checkpoint; whatever happens, the file holds the old content or the new.

    Args:
        content: tensors and plain values.
        path: of the file.
        before: as in `write_atomically`.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_atomically(path, buffer.getbuffer(), before)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content on the CPU; nothing in the file can run code.

    Raises:
        UserError: the file is missing, cut short or damaged, holds anything but tensors and plain
            values, or would unpack to more than its own size.
        OSError: it cannot be read, damaged or not.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: has the run been trained?")
    file = io.BytesIO(path.read_bytes())
    try:
        _check_size(file)
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
        storages = dict[int, int]()
        for tensor in _tensors(content):
            _check_tensor(tensor)
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        if sum(storages.values()) > file.getbuffer().nbytes:  # older torch believes what it says
            raise ValueError("it claims tensors of more than its own size")
        if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
            raise ValueError("it has no state_dict")
        if not all(isinstance(name, str) for name in content["state_dict"]):
            raise ValueError("its state_dict has weights without a name")
    except Exception as error:  # of the many kinds that broken bytes can raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path} is damaged or not a checkpoint ({reason}): {_remedy(path)}"
        ) from error
    return content


def _remedy(path: Path) -> str:
    again = "train the run again in another folder"
    others = [file for file in path.parent.glob("*.ckpt") if file.name != path.name]
    if not others:
        return again
    if path.stem == "best":  # a copy of the last would pass for the best
        return (
            f"remove it and metrics.json, then python -m cvae.resume {path.parents[1]} ends the "
            f"run with its last weights, or {again}"
        )
    return f"copy {others[0]} over it, or {again}"


def _check_size(file: io.BytesIO) -> None:
    """torch does not compress: what says it holds more than the file was not written by it."""
    with zipfile.ZipFile(file) as archive:
        if sum(member.file_size for member in archive.infolist()) > file.getbuffer().nbytes:
            raise ValueError("it unpacks to more than its own size")


def _check_tensor(tensor: Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise ValueError(f"it holds a tensor of {tuple(tensor.shape)} that is not plain")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"it claims a tensor of {tuple(tensor.shape)} without its data")


def _tensors(content: Any) -> Iterator[Tensor]:
    """Every tensor, once, however often and however deep the content refers to it."""
    seen, waiting = set(), [content]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Tensor):
            yield node
        elif isinstance(node, Mapping):
            waiting += node.values()
        elif isinstance(node, list | tuple):
            waiting += node
