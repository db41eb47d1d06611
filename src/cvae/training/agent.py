"""Starts a worker for each process of a run with torchrun, and says which one failed first.

`python -m cvae.training.agent PROCESSES FOLDER CONFIG PACKAGE…`, with the run's config as JSON and
standard input a pipe from the process that wants the run trained.
"""

import logging
import signal
import sys

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from cvae.errors import UserError
from cvae.run import Run

PATIENCE = 30  # seconds that torchrun gives a process to end


def main() -> None:
    """Start the workers and wait for them; a failure's line goes into the run's folder."""
    processes, folder, config, *packages = sys.argv[1:]
    command = ["--standalone", f"--nproc-per-node={processes}", "-m", "cvae.training.worker"]
    try:
        torchrun.run(torchrun.parse_args([*command, folder, config, *packages]))
    except SignalException as ended:
        sys.exit(128 + ended.sigval)
    except ChildFailedError as failed:
        line = _in_one_line(_cause(failed), processes)
        try:
            Run(folder).failure.write_text(line)
        except OSError:  # a full disk, which may be what the line is about
            print(line, file=sys.stderr)
        sys.exit(1)


def _cause(failed: ChildFailedError) -> ProcessFailure:
    """The process that was killed, or that tells of a mistake, or that failed first.

    The others lose their connection to it, and may tell of that before torchrun looks; one that
    hangs is killed by torchrun itself, but not so soon.
    """
    _, first = failed.get_first_failure()
    others = failed.failures.values()
    near = [failure for failure in others if failure.timestamp - first.timestamp < PATIENCE]
    killed = [failure for failure in near if failure.exitcode < 0]
    mistaken = [failure for failure in near if _told(failure)[0] == UserError.__name__]
    return [*killed, *mistaken, first][0]


def _told(failure: ProcessFailure) -> tuple[str, str]:
    """The kind of what a process raised, and its words; of one that could not tell, nothing."""
    told = failure.error_file_data["message"]
    kind, _, words = told["message"].partition(": ") if isinstance(told, dict) else ("", "", "")
    return kind, words


def _in_one_line(failure: ProcessFailure, processes: str) -> str:
    """What went wrong in a process; a fault's traceback is shown as well."""
    kind, words = _told(failure)
    if not kind:
        how = failure.message if failure.exitcode < 0 else f"exit status {failure.exitcode}"
        return f"process {failure.local_rank + 1} of {processes} ended: {how}"
    if kind == UserError.__name__:
        return words
    told = failure.error_file_data["message"]
    print(told["extraInfo"]["py_callstack"], file=sys.stderr)
    message: str = told["message"]
    return message


def _unraisable(told: "sys.UnraisableHookArgs") -> None:
    """What Python says of an error that nobody can catch, but for one of torchrun's own.

    Its timer ends its thread when it is thrown away, and where that happens in the thread itself,
    at the end of an interrupted run, the thread cannot wait for itself: it ends all the same.
    """
    if str(told.exc_value) != "cannot join current thread":
        sys.__unraisablehook__(told)


if __name__ == "__main__":
    sys.unraisablehook = _unraisable
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # SLURM's: the parent passes it on as SIGTERM
    logging.disable(logging.ERROR)  # torchrun's own account of what the parent says in one line
    main()
