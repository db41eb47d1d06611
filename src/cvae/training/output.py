"""The standard output, where the bars are."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO


class _Unbroken:
    """A stream for as long as it can be written, and nothing from then on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        self._try(self._stream.write, text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable[..., object], *arguments: str) -> None:
        try:
            act(*arguments)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@contextmanager
def unbroken_output() -> Iterator[None]:
    """Let no bar end a training: who reads it may be gone, as `tee` at Ctrl-C, or its disk full."""
    stream: Any = _Unbroken(sys.stdout)
    with redirect_stdout(stream):
        yield
