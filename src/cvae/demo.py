"""`python -m cvae.demo`: the page that writes digits, from the latest run that can be one.

Where no finished run below outputs/ can, the main job is trained first.
"""

import argparse
import logging
import subprocess
import sys

from cvae.command import run_command
from cvae.data.source import Source
from cvae.errors import UserError
from cvae.export import export
from cvae.exporting.digits import digit_model
from cvae.run import Run
from cvae.run_folder import PAGE
from cvae.runs import find, newest_first
from cvae.training.signals import wait_for

log = logging.getLogger(__name__)


def can_be_a_page(run: Run) -> bool:
    """Whether the run has ended and its model has the page's form."""
    if not run.metrics.is_file():
        return False
    try:
        source = run.part(Source, "data", "source")
        digit_model(find(str(run.folder)).build_model().eval(), run.view, source)
    except UserError as error:
        log.info("passed over %s: %s", run.folder, error)
        return False
    return True


def _train() -> None:
    """The main job, which tells by itself how it ended."""
    command = [sys.executable, "-m", "cvae.train"]
    with subprocess.Popen(command, start_new_session=True) as training:
        if status := wait_for(training):
            sys.exit(status)


def main() -> None:
    """Read the command line, which has nothing but --help."""
    argparse.ArgumentParser(prog="python -m cvae.demo", description=__doc__).parse_args()
    run = next(filter(can_be_a_page, newest_first()), None)
    if run is None:
        log.info("no finished run below outputs/ can be a page: training the main job, for minutes")
        _train()
        run = next(filter(can_be_a_page, newest_first()))
    export(run)
    print(f"open {run.folder / PAGE} in a browser")


if __name__ == "__main__":
    run_command(main)
