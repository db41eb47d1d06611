"""A sweep's folder: below it a run's folder for each job, and what became of the jobs."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from cvae.files import write_atomically
from cvae.run import Run
from cvae.runs import check_link, find_all, folders_below


def announce(folder: Path) -> None:
    """Make a folder a sweep's: a file with the command, which is shown and never run."""
    words = shlex.join(["python", "-m", "cvae.train", *sys.argv[1:]])
    write_atomically(_command(folder), f"{words}\n".encode())


def is_sweep(name: str) -> bool:
    """Whether a sweep began in the folder."""
    return name != "latest" and _command(Path(name)).is_file()


def is_refused(name: str) -> bool:
    """Whether a sweep began in the folder, and none of its jobs got as far as a config."""
    return is_sweep(name) and not folders_below(Path(name))


def _command(folder: Path) -> Path:
    return folder / "sweep.txt"


def jobs(folder: Path) -> list[Run]:
    """The runs of a sweep that have a config, finished or not, in the order of their numbers.

    Raises:
        UserError: a folder has links in it.
    """
    runs = [] if is_refused(str(folder)) else find_all([str(folder)])
    return sorted(runs, key=lambda run: (len(run.folder.name), run.folder.name))


def failures(names: Sequence[str | Path]) -> dict[Path, str]:
    """The folders below those named whose run failed and did not end after all, each with why.

    Raises:
        UserError: where it should say why is a link.
    """
    found = sorted(note for name in names for note in Path(name).glob(f"**/{Run('').failure.name}"))
    for note in found:
        check_link(note)
    notes = [note for note in found if note.is_file()]  # to read a pipe would take for ever
    lines = {note.parent: " ".join(note.read_text(errors="replace").split()) for note in notes}
    return {folder: line for folder, line in lines.items() if not Run(folder).metrics.is_file()}
