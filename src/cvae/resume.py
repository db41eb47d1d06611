"""`python -m cvae.resume FOLDER`: go on with a run that was interrupted, or train it for longer."""

import argparse
import logging

from cvae.allowed import allow
from cvae.command import log_to, run_command
from cvae.errors import UserError
from cvae.run import Run, find
from cvae.training.launch import is_first_process, launch

log = logging.getLogger(__name__)


def resume(run: Run, changes: list[str]) -> None:
    """Go on in a run's folder from its last checkpoint.

    Args:
        run: interrupted, or finished and to be trained for longer; where there is nothing left to
            train, it is tested again.
        changes: `trainer.KEY=VALUE`, kept in the folder's config.

    Raises:
        UserError: there is nothing to go on from, or the run is finished and nothing changes.
    """
    changed = run.changed(changes)
    if not is_first_process():
        logging.getLogger().setLevel(logging.ERROR)
        launch(changed)
        return
    with run.hold():
        log_to(run.folder)
        last = run.checkpoint("last")
        if not last.is_file():
            raise UserError(f"{last} does not exist: nothing to go on from, start the run again")
        if run.metrics.is_file() and not changes:
            raise UserError(
                f"{run.folder} is finished: trainer.max_epochs=NUMBER trains it for longer"
            )
        begun = last.stat().st_mtime_ns
        changed.write_config()
        log.info("resuming %s %s", run.folder, " ".join(changes))
        try:
            launch(changed)
        except BaseException:
            if last.stat().st_mtime_ns == begun:  # ended before anything was trained
                run.write_config()
            raise


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m cvae.resume", description=__doc__)
    parser.add_argument(
        "folder",
        help="a run's folder, or latest: the one below outputs/ with the newest checkpoint",
    )
    parser.add_argument(
        "changes",
        nargs="*",
        metavar="trainer.KEY=VALUE",
        help="for example trainer.max_epochs=40 or trainer.accelerator=gpu",
    )
    parser.add_argument("--allow", metavar="PACKAGE", help="your own package that the config names")
    arguments = parser.parse_args()
    if arguments.allow:
        allow(arguments.allow)
    resume(find(arguments.folder), arguments.changes)


if __name__ == "__main__":
    run_command(main)
