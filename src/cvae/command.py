"""What all commands share: how they speak, and how they end."""

import errno
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import singledispatch
from pathlib import Path
from typing import Any

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from cvae.errors import Interrupted, UserError, unknown
from cvae.interruption import SIGNALS, answer, interrupt
from cvae.memory import keep_freed_memory

log = logging.getLogger(__name__)
FORMAT = "[%(asctime)s][%(levelname)s] %(message)s"
ASKED = "CVAE_FULL_ERROR"  # whether HYDRA_FULL_ERROR was the user's, for processes started later
EXTRAS = {  # of Hydra's, and what installs them
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit": "submitit",
    "hydra/sweeper/optuna": "optuna",
}
MISTAKES = (UserError, HydraException, OmegaConfBaseException, OSError)


def run_command(main: Callable[[], Any]) -> None:
    """Run a command; a mistake or a signal ends it with one line on the standard error.

    The exit status is 1 after a mistake and 128 + N after signal N. With HYDRA_FULL_ERROR=1 a
    mistake shows its traceback; any other exception is a fault of the program and always does.
    """
    log_to(None)
    threading.excepthook = _show_of_thread
    keep_freed_memory()
    preemption = [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []
    signals = [*SIGNALS, *preemption]
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup
        signals.remove(signal.SIGHUP)
    answer(signals, interrupt)
    os.environ.setdefault(ASKED, os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or else Hydra's main prints errors its own way
    try:
        main()
    except Interrupted as interruption:
        log.error("%s", interruption)
        sys.exit(128 + interruption.signum)
    except MISTAKES as error:
        log_mistake(error)
        sys.exit(1)
    finally:
        for signum in signals:  # what libraries still do at exit would show as a traceback
            signal.signal(signum, signal.SIG_DFL)
        gc.freeze()  # the interpreter would look through all of torch for garbage once more


def _show_of_thread(raised: threading.ExceptHookArgs) -> None:
    """Show a thread's traceback, but for a full disk's, which the main thread comes upon as well.

    TensorBoard raises there what its writing thread could not do.
    """
    if not issubclass(raised.exc_type, OSError):
        threading.__excepthook__(raised)


def log_mistake(error: BaseException) -> None:
    """Say in one line what went wrong, with the traceback for those who asked for it."""
    shown = error if os.environ.get(ASKED) == "1" else None
    log.error("%s", in_one_line(error), exc_info=shown)


def in_one_line(error: BaseException) -> str:
    """What a mistake's line says."""
    return " ".join(_message(error).split())


class _LogFile(logging.FileHandler):
    """A file that may fail in the middle, as on a full disk: the standard error has the lines."""

    def handleError(self, record: logging.LogRecord) -> None: ...  # noqa: N802


def log_to(folder: Path | None) -> None:
    """Send the log to the standard error and, if a folder is given, to its `train.log`.

    Raises:
        OSError: the file cannot be opened; the log goes where it went.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if folder is not None:
        handlers.append(_LogFile(folder / "train.log"))
    logging.basicConfig(level=logging.INFO, format=FORMAT, handlers=handlers, force=True)


@singledispatch
def _message(error: BaseException) -> str:
    """What to tell of a mistake: where Hydra speaks of its own doings, what the user typed."""
    return str(error)


@_message.register
def _(error: OSError) -> str:
    what = error.strerror or str(error)
    if error.filename:
        what = f"{error.filename}: {what}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{what}: free some space or choose another folder"
    if not error.filename:
        return what
    if isinstance(error, PermissionError) and (closed := _closed(Path(error.filename))):
        return f"{closed}: {error.strerror}: let this user read it, or choose another folder"
    return f"{what}: choose a folder that can be written"


def _closed(path: Path) -> Path | None:
    """The file that this user may not read, or the folder above it that keeps it out of sight."""
    for place in reversed((path, *path.parents)):
        right = os.R_OK if place == path else os.X_OK
        if os.path.exists(place) and not os.access(place, right):
            return place
    return None


@_message.register
def _(error: OverrideParseException) -> str:
    *reason, _see = error.message.splitlines()
    return f"{error.override}: not KEY=VALUE, or a value that needs quotes ({' '.join(reason)})"


@_message.register
def _(error: MissingConfigException) -> str:
    file = error.missing_cfg_file or ""
    group, _, choice = file.rpartition("/")
    for start, extra in EXTRAS.items():
        if file.startswith(start):
            return f"{extra} is not installed: pip install -c constraints.txt -e '.[{extra}]'"
    if not (group and error.options):
        return str(error)
    return str(unknown(f"{group}={choice}", choice, error.options))


@_message.register
def _(error: ConfigCompositionException) -> str:
    cause = error.__cause__
    return _message(cause) if isinstance(cause, OmegaConfBaseException) else str(error)


@_message.register
def _(error: OmegaConfBaseException) -> str:
    if not (error.full_key and error.msg):
        return str(error)
    return f"{error.full_key}: {error.msg.splitlines()[0]}"


@_message.register(ConfigAttributeError)
@_message.register(ConfigKeyError)
def _(error: ConfigAttributeError | ConfigKeyError) -> str:
    there = error.parent_node if isinstance(error.parent_node, DictConfig) else ()
    return str(unknown(str(error.full_key), str(error.key), there))
