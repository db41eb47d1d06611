"""What the commands over finished runs share: their arguments, and a turn for each run."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from cvae.allowed import allow
from cvae.command import MISTAKES, log_mistake
from cvae.run import Run
from cvae.run_folder import SPLITS

log = logging.getLogger(__name__)
Work = Callable[[Run], str]  # what is printed of a run


def arguments_over_runs(name: str, description: str | None) -> argparse.ArgumentParser:
    """A command line of runs and their data, to which a command adds what is its own.

    Args:
        name: of the module, as `python -m` is given it.
        description: what the command does.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER",
        help="a run's folder, a sweep's, or latest: the run below outputs/ that last wrote a "
        "checkpoint",
    )
    with_data(parser)
    return parser


def with_split(parser: argparse.ArgumentParser) -> None:
    """Add which of the data is looked at, with which draws."""
    parser.add_argument("--seed", type=seed, default=0, help="of all draws (default 0)")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="test",
        help="the data to look at: val to choose between models (default test)",
    )


def with_data(parser: argparse.ArgumentParser) -> None:
    """Add what a command needs to find a run's data again."""
    parser.add_argument(
        "--data-root",
        metavar="PATH",
        help="the folder of the data's files, if it is not where the run had it",
    )


def seed(text: str) -> int:
    """A seed as the command line has it.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdigit() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 0 to 2**32 - 1")
    return int(text)


def read(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, and admit the package that its `--allow` names.

    Raises:
        UserError: there is no such package.
    """
    parser.add_argument("--allow", metavar="PACKAGE", help="your own package that a config names")
    arguments = parser.parse_args()
    if arguments.allow:
        allow(arguments.allow)
    return arguments


def show(run: Run, doing: str, work: Work) -> None:
    """Print what the work says of a run.

    Args:
        run: finished.
        doing: what is done to it, for the log.
        work: raises one of MISTAKES if it fails.
    """
    log.info("%s %s", doing, run.folder)
    print(f"{work(run)}\nfolder: {run.folder}\n", flush=True)


def for_each_run(runs: Sequence[Run], doing: str, work: Work) -> None:
    """Print what the work says of each run; end with status 1 if it failed for any of them.

    Args:
        runs: finished, each of which the others can do without.
        doing: what is done to a run, for the log.
        work: raises one of MISTAKES if it fails.
    """
    failed = False
    for run in runs:
        try:
            show(run, doing, work)
        except MISTAKES as error:
            log_mistake(error)
            failed = True
    sys.exit(1 if failed else 0)
