"""Signals that ask a command to end."""

import signal
import time
from collections.abc import Callable, Iterable

from cvae.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TOGETHER = 2.0  # seconds
_last = -TOGETHER  # when the last one was answered


def interrupt(signum: int, _frame: object) -> None:
    """The signal handler that stops at once."""
    raise Interrupted(signum)


def answer(signums: Iterable[int], handler: Callable[[int, object], None]) -> None:
    """Let a handler answer signals; one that follows another closely is the same wish.

    `timeout`, a service manager or `pkill` tell a process and also its parent, which passes it on.
    """

    def once(signum: int, frame: object) -> None:
        global _last
        if time.monotonic() - _last > TOGETHER:
            _last = time.monotonic()
            handler(signum, frame)

    for signum in signums:
        signal.signal(signum, once)
