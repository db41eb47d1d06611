"""One of several processes that train a run: `torchrun … -m cvae.training.worker FOLDER CONFIG`."""

import json
import logging
import os
import sys
from contextlib import nullcontext

from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from cvae.allowed import allow
from cvae.command import log_to, run_command
from cvae.errors import Interrupted
from cvae.run import Run
from cvae.training.fit import fit
from cvae.training.signals import end_with


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
        with run.hold_for_parent() if first else nullcontext():
            fit(run)
    except Interrupted as interruption:  # the process that started all this tells of it
        sys.exit(128 + interruption.signum)
    except Exception as error:
        handler.record_exception(error)
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
