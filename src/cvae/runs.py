"""Runs by the names that a command line gives them: a folder, a sweep's, latest."""

from collections.abc import Sequence
from pathlib import Path

from cvae.errors import UserError
from cvae.run import Run

OUTPUTS = Path("outputs")


def find(name: str) -> Run:
    """The run in a folder; `latest` is the one below outputs/ that last wrote a checkpoint.

    Raises:
        UserError: there is none, or a file that the program may write is a link.
    """
    run = _latest() if name == "latest" else Run(name)
    if not (run.folder / "config.yaml").is_file():
        for below in folders_below(run.folder):
            raise UserError(f"{name} holds several runs: name one of them, such as {below}")
        raise UserError(f"{name} is not a run's folder: it has no config.yaml")
    for path in run.folder.rglob("*"):
        check_link(path)
    return run


def check_link(path: Path) -> None:
    """Refuse a link: a folder from elsewhere could have any file shown or overwritten.

    Raises:
        UserError: it is one.
    """
    if path.is_symlink():
        raise UserError(f"{path} is a link: put what it leads to in its place")


def find_all(names: Sequence[str]) -> list[Run]:
    """The runs that names stand for: a run's folder, `latest`, or a folder with runs below it.

    Raises:
        UserError: a name stands for none, or a folder has links in it.
    """
    runs: dict[Path, Run] = {}
    for name in names:
        below = () if name == "latest" else folders_below(Path(name))
        for place in below or (name,):
            run = find(str(place))
            runs.setdefault(run.folder.resolve(), run)
    return list(runs.values())


def folders_below(folder: Path) -> Sequence[Path]:
    """The folder itself and those below it, at any depth, that hold a run's config."""
    found = sorted(path.parent for path in folder.glob("**/config.yaml"))
    return [place for place in found if place.name != ".hydra"]


def newest_first() -> list[Run]:
    """The runs below outputs/ that have a checkpoint, the last to have written one first."""
    checkpoints = OUTPUTS.glob("**/checkpoints/last.ckpt")
    newest = sorted(checkpoints, key=lambda path: path.stat().st_mtime, reverse=True)
    return [Run(path.parents[1]) for path in newest]


def _latest() -> Run:
    for run in newest_first():
        return run
    raise UserError(f"no run with a checkpoint below {OUTPUTS.resolve()}: name its folder")
