"""One of several processes that train a run: `torchrun … -m cvae.training.worker FOLDER`."""

import logging
import os
import signal
import sys
import threading
from contextlib import nullcontext

from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from cvae.allowed import allow
from cvae.command import log_to, run_command
from cvae.errors import Interrupted
from cvae.run import Run
from cvae.training.fit import fit


def main() -> None:
    """Train the run in the folder; only the first process speaks, the launcher tells of errors."""
    folder, *packages = sys.argv[1:]
    for package in packages:
        allow(package)
    run, first = Run(folder), os.environ["RANK"] == "0"
    if first:
        log_to(run.folder)
    else:
        logging.getLogger().setLevel(logging.ERROR)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    handler = get_error_handler()
    handler.initialize()
    try:
        with run.hold_for_parent() if first else nullcontext():
            fit(run)
    except Interrupted as interruption:  # the process that started all this tells of it
        sys.exit(128 + interruption.signum)
    except Exception as error:
        handler.record_exception(error)
        sys.exit(1)


def _end_with_parent() -> None:
    """Standard input is a pipe that closes when the process that started all this is gone."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    run_command(main)
