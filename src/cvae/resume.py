"""`python -m cvae.resume FOLDER`: go on with a run or a sweep, or train it for longer."""

import argparse
import logging
from functools import partial
from pathlib import Path

from cvae.command import log_to, run_command
from cvae.errors import Interrupted, UserError
from cvae.files import write_atomically, written
from cvae.finished import read
from cvae.jobs import failures, is_sweep, jobs
from cvae.run import Run
from cvae.runs import find
from cvae.sweep import end_sweep, stopped
from cvae.training.apart import apart
from cvae.training.launch import is_first_process, launch

log = logging.getLogger(__name__)

LENGTH = ("max_epochs", "max_steps", "max_time")  # of a training


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
        _go_on(run, changed)


def resume_sweep(folder: Path, changes: list[str]) -> None:
    """Run what is missing of a sweep, a job after the other, and write its summary again.

    Args:
        folder: the sweep's. Jobs that have not begun begin with the configs in it.
        changes: `trainer.KEY=VALUE`, kept in all jobs' configs; finished ones then go on, too.

    Raises:
        UserError: no job is missing and nothing changes, or a change cannot be.
    """
    pairs = [(run, run.changed(changes)) for run in jobs(folder)]
    missing = [pair for pair in pairs if changes or not pair[0].metrics.is_file()]
    if not (pairs or failures([folder])):
        raise UserError(f"{folder}: no job of the sweep began; mend the command in sweep.txt")
    if not missing and not failures([folder]):
        raise UserError(f"{folder} is finished: trainer.max_epochs=NUMBER trains it for longer")
    try:
        for run, changed in missing:
            apart(partial(_go_on, run, changed), run)
    except Interrupted as interruption:
        raise stopped(folder, interruption, changes) from None
    end_sweep(folder)


def _go_on(run: Run, changed: Run) -> None:
    """Go on as changed; a failure before any weights are written leaves the run as it was."""
    weights = [run.checkpoint(name) for name in ("best", "last")]
    before = [written(path) for path in weights]
    tables = (run.metrics, run.folder / "metrics.csv")
    kept = {path: path.read_bytes() for path in tables if path.is_file()}
    changed.write_config()
    log.info("going on with %s", run.folder)
    try:
        launch(changed)
    except Interrupted:
        if any(run.config["trainer"].get(key) != changed.config["trainer"][key] for key in LENGTH):
            run.metrics.unlink(missing_ok=True)  # it is not finished: it goes on to its new end
        raise
    except Exception:
        if [written(path) for path in weights] == before:
            run.write_config()
            for path, content in kept.items():
                write_atomically(path, content)
        raise


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m cvae.resume", description=__doc__)
    parser.add_argument(
        "folder",
        help="a run's folder, or a sweep's, of which only what is missing runs; "
        "or latest: the run below outputs/ with the newest checkpoint",
    )
    parser.add_argument(
        "changes",
        nargs="*",
        default=[],
        metavar="trainer.KEY=VALUE",
        help="for example trainer.max_epochs=40 or trainer.accelerator=gpu",
    )
    arguments = read(parser)
    if is_sweep(arguments.folder):
        resume_sweep(Path(arguments.folder), arguments.changes)
    else:
        resume(find(arguments.folder), arguments.changes)


if __name__ == "__main__":
    run_command(main)
