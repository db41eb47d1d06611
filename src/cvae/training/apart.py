"""A job of a sweep in a process of its own: what befalls it stays there, and the sweep goes on."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from typing import IO, Any

from cvae.command import MISTAKES, in_one_line, log_to, run_command
from cvae.files import write_atomically
from cvae.run import Run
from cvae.training.signals import PREEMPTIONS, end_with, postponed

log = logging.getLogger(__name__)


def apart(work: Callable[[], Any], run: Run, wanted: Callable[[], bool] = lambda: True) -> bool:
    """Do a job's work in a process of its own, which holds the run's folder meanwhile.

    A signal that ends this process is passed on, and the work may write a checkpoint. A failure
    leaves its line in the folder.

    Args:
        work: all of the job's; this process has to have computed nothing yet, as a fork that comes
            after could hang.
        run: whose work it is.
        wanted: whether somebody still waits for the work; it is stopped when nobody does.

    Returns:
        Whether it was done.
    """
    reading, writing = os.pipe()
    process = get_context("fork").Process(target=_work, args=(work, run, wanted, reading, writing))
    with os.fdopen(writing, "wb") as line, postponed():
        process.start()
        os.close(reading)
        _wait(process, line)
    status = process.exitcode or 0
    if status < 0:
        note(run, f"its process was killed ({signal.Signals(-status).name})")
    return status == 0


def _wait(process: ForkProcess, line: IO[bytes]) -> None:
    """Wait for a process; what ends the wait asks it to stop, a second time at once."""
    try:
        process.join()
    except BaseException:
        line.close()  # as the end of this process would
        try:
            process.join()
        except BaseException:
            process.terminate()
            raise
        raise


def _work(
    work: Callable[[], Any], run: Run, wanted: Callable[[], bool], reading: int, writing: int
) -> None:
    os.setsid()  # a terminal's Ctrl-C comes to the parent alone, and is passed on once
    os.close(writing)
    if not wanted():
        sys.exit(128 + signal.SIGTERM)
    end_with(reading, wanted)
    run_command(partial(_noting, work, run))


def _noting(work: Callable[[], Any], run: Run) -> None:
    for signum in PREEMPTIONS:
        signal.signal(signum, signal.SIG_IGN)  # the parent passes it on as SIGTERM
    with run.hold():
        run.failure.unlink(missing_ok=True)
        try:
            log_to(run.folder)
            work()
        except MISTAKES as error:
            note(run, in_one_line(error))
            raise
        except Exception as error:
            log.exception("a fault of the program")
            note(run, f"{type(error).__name__}: {error}")
            sys.exit(1)


def note(run: Run, line: str) -> None:
    """Leave the line that says why a job failed in its folder."""
    write_atomically(run.failure, f"{' '.join(line.split())}\n".encode())
