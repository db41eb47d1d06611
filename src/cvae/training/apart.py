"""A job of a sweep in a process of its own: what befalls it stays there, and the sweep goes on."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from typing import Any

from cvae.command import MISTAKES, in_one_line, log_to, run_command
from cvae.files import write_atomically
from cvae.run import Run
from cvae.training.signals import end_with

log = logging.getLogger(__name__)


def apart(work: Callable[[], Any], run: Run) -> bool:
    """Do a job's work in a process of its own, which holds the run's folder meanwhile.

    A signal that ends this process is passed on, and the work may write a checkpoint. A failure
    leaves its line in the folder.

    Args:
        work: all of the job's; this process has to have computed nothing yet, as a fork that comes
            after could hang.
        run: whose work it is.

    Returns:
        Whether it was done.
    """
    reading, writing = os.pipe()
    process = get_context("fork").Process(target=_work, args=(work, run, reading, writing))
    process.start()
    os.close(reading)
    try:
        process.join()
    except BaseException:
        process.terminate()
        process.join()
        raise
    finally:
        os.close(writing)
    status = process.exitcode or 0
    if status < 0:
        _note(run, f"its process was killed ({signal.Signals(-status).name})")
    return status == 0


def _work(work: Callable[[], Any], run: Run, reading: int, writing: int) -> None:
    os.setsid()  # a terminal's Ctrl-C comes to the parent alone, and is passed on once
    os.close(writing)
    end_with(reading)
    run_command(partial(_noting, work, run))


def _noting(work: Callable[[], Any], run: Run) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # SLURM's: the parent passes it on as SIGTERM
    with run.hold():
        log_to(run.folder)
        run.failure.unlink(missing_ok=True)
        try:
            work()
        except MISTAKES as error:
            _note(run, in_one_line(error))
            raise
        except Exception as error:
            log.exception("a fault of the program")
            _note(run, f"{type(error).__name__}: {error}")
            sys.exit(1)


def _note(run: Run, line: str) -> None:
    write_atomically(run.failure, f"{' '.join(line.split())}\n".encode())
