"""Signals that ask a run to stop, and how they come to its other processes."""

import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cvae.errors import Interrupted
from cvae.interruption import SIGNALS, answer, interrupt

PREEMPTIONS = (signal.SIGUSR1, signal.SIGUSR2)  # SLURM's, as the README has it, and submitit's
LOOK_EVERY = 0.5  # seconds


def handle_signals(handler: Callable[[int, object], None]) -> None:
    """Take the place of Lightning's handlers until training ends.

    Its own wait for other processes, and SLURM's writes a checkpoint in the middle of a step, from
    where no run can go on exactly. Where nobody listens to a signal, nobody will: SIGUSR1 is a wish
    under SLURM alone.
    """
    if threading.current_thread() is threading.main_thread():
        signums = (*SIGNALS, signal.SIGUSR1)
        answer([signum for signum in signums if callable(signal.getsignal(signum))], handler)


def wait_for(process: subprocess.Popen[bytes]) -> int:
    """The exit status of a process in a session of its own, where a terminal's Ctrl-C is not heard.

    A signal that ends this process is passed on, as SIGTERM, and waited for.
    """
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def end_with(descriptor: int, wanted: Callable[[], bool] = lambda: True) -> None:
    """Let SIGTERM come to this process when the one at a pipe's other end is gone.

    Args:
        descriptor: the pipe's.
        wanted: is asked every now and then; SIGTERM comes as well when it says no.
    """

    def wait() -> None:
        while not select.select([descriptor], [], [], LOOK_EVERY)[0] and wanted():
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def postponed() -> Iterator[None]:
    """Let what was to happen when the machine is taken away wait for the end of what runs within.

    So a checkpoint is written before submitit asks for the job to be started again.
    """
    handlers = dict[int, Callable[[int, FrameType | None], Any]]()
    for signum in PREEMPTIONS:
        if callable(handler := signal.getsignal(signum)):
            handlers[signum] = handler
            signal.signal(signum, interrupt)
    try:
        yield
    except Interrupted as interruption:
        if interruption.signum in handlers:
            handlers[interruption.signum](interruption.signum, None)
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
