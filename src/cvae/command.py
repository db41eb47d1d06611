"""What all commands share: how they speak, and how they end."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from cvae.errors import Interrupted, UserError

log = logging.getLogger(__name__)
FORMAT = "[%(asctime)s][%(levelname)s] %(message)s"
FULL_ERROR = os.environ.get("HYDRA_FULL_ERROR") == "1"
MISTAKES = (UserError, HydraException, OmegaConfBaseException, OSError)


def run_command(main: Callable[[], Any]) -> None:
    """Run a command; a mistake or a signal ends it with one line on the standard error.

    The exit status is 1 after a mistake and 128 + N after signal N. With HYDRA_FULL_ERROR=1 a
    mistake shows its traceback; any other exception is a fault of the program and always does.
    """
    log_to(None)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _interrupt)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or else Hydra's main prints errors its own way
    try:
        main()
    except Interrupted as interruption:
        log.error("%s", interruption)
        sys.exit(128 + interruption.signum)
    except MISTAKES as error:
        log_mistake(error)
        sys.exit(1)


def log_mistake(error: BaseException) -> None:
    """Say in one line what went wrong, with the traceback for those who asked for it."""
    log.error("%s", _in_one_line(error), exc_info=error if FULL_ERROR else None)


def log_to(folder: Path | None) -> None:
    """Send the log to the standard error and, if a folder is given, to its `train.log`."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if folder is not None:
        handlers.append(logging.FileHandler(folder / "train.log", delay=True))
    logging.basicConfig(level=logging.INFO, format=FORMAT, handlers=handlers, force=True)


def _in_one_line(error: BaseException) -> str:
    """An exception's message without line breaks, and its cause's where Hydra keeps it there."""
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error.__cause__, OmegaConfBaseException):
        message += f" ({error.__cause__})"
    return " ".join(message.split())


def _interrupt(signum: int, _frame: object) -> None:
    raise Interrupted(signum)
