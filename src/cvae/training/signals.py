"""Signals that ask a run to stop, and SLURM's, which also asks for it to be started again."""

import logging
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cvae.command import interrupt
from cvae.errors import Interrupted

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
PREEMPTIONS = (signal.SIGUSR1, signal.SIGUSR2)  # SLURM's, as the README has it, and submitit's
LOOK_EVERY = 0.5  # seconds


def handle_signals(handler: Callable[[int, object], None]) -> None:
    """Take the place of Lightning's handlers, which wait for other processes, until it ends.

    Where nobody listens to a signal, nobody will: SIGUSR1 is a wish under SLURM alone.
    """
    if threading.current_thread() is threading.main_thread():
        for signum in SIGNALS:
            if callable(signal.getsignal(signum)):
                signal.signal(signum, handler)


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


def requeue() -> None:
    """Put SLURM's job back into its queue, to run the same command again when there is room."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        log.warning("SLURM was not asked to put job %s back: %s", job, error)
