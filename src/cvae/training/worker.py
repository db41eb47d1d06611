"""One of several processes that train a run: `torchrun … -m cvae.training.worker FOLDER CONFIG`."""

import json
import logging
import os
import sys
import time
from contextlib import nullcontext

from torch.distributed.elastic.multiprocessing.errors import ErrorHandler, get_error_handler

from cvae.allowed import allow
from cvae.command import log_to, run_command
from cvae.errors import Interrupted, UserError
from cvae.run import Run
from cvae.training.fit import fit
from cvae.training.signals import end_with

WAIT = 3.0  # seconds in which a process that ends because of a mistake has told of it


def main() -> None:
    """Train the run in the folder; only the first process speaks, the launcher tells of errors."""
    folder, config, *packages = sys.argv[1:]
    for package in packages:
        allow(package)
    run, first = Run(folder, json.loads(config)), os.environ["RANK"] == "0"
    if first:
        log_to(run.folder)
    else:
        logging.getLogger().setLevel(logging.ERROR)
    end_with(sys.stdin.fileno())
    handler = get_error_handler()
    handler.initialize()
    try:
        _fit(run, first, handler)
    except Interrupted as interruption:  # the process that started all this tells of it
        sys.exit(128 + interruption.signum)


def _fit(run: Run, first: bool, handler: ErrorHandler) -> None:
    """Train, and leave word of what went wrong for the launcher."""
    try:
        with run.hold_for_parent() if first else nullcontext():
            fit(run)
    except Exception as error:
        if not isinstance(error, UserError):
            time.sleep(WAIT)  # it may be the connection to another, whose mistake it is
        handler.record_exception(error)
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
