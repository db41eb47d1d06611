"""Where a run keeps its files, which are made of its weights, and which process may write them."""

import logging
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cvae.allowed import packages
from cvae.errors import UserError
from cvae.files import remove_leftovers, written

log = logging.getLogger(__name__)
SPLITS = ("test", "val")  # of the data, which finished runs are looked at with
GRAPHS, PAGE, FORMS = ("model.onnx", "model.int8.onnx"), "demo.html", "export.json"


class RunFolder:
    """A run's files.

    Args:
        folder: where they are, or will be.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def checkpoint(self, name: str = "best") -> Path:
        """`checkpoints/NAME.ckpt`: best or last."""
        return self.folder / "checkpoints" / f"{name}.ckpt"

    @property
    def metrics(self) -> Path:
        """Final numbers."""
        return self.folder / "metrics.json"

    @property
    def words(self) -> Path:
        """What was given on the command line that began it, where Hydra itself would put it."""
        return self.folder / ".hydra" / "overrides.yaml"

    def evaluation(self, split: str = "test") -> Path:
        """What `cvae.evaluate` measured."""
        return self.folder / f"evaluation{_ending(split)}.json"

    def latents(self, split: str = "test") -> Path:
        """What `cvae.visualize` read off the data."""
        return self.folder / f"latents{_ending(split)}.npz"

    def pictures(self, split: str = "test") -> Path:
        """The folder of pictures."""
        return self.folder / f"pictures{_ending(split)}"

    def board(self, split: str = "test") -> Path:
        """The folder of the same pictures for TensorBoard."""
        return self.folder / "tensorboard" / f"pictures{_ending(split)}"

    @property
    def failure(self) -> Path:
        """A line that says why its training failed, of a sweep's job."""
        return self.folder / "failure.txt"

    @property
    def begun(self) -> bool:
        """Whether there is something to go on from."""
        return self.checkpoint("last").exists() or self.metrics.exists()

    @property
    def weights(self) -> str:
        """Which weights stand for the run: the best, or the last where nothing was validated."""
        return "best" if self.checkpoint("best").is_file() else "last"

    def unchanged(self) -> Callable[[], None]:
        """What to call before something is written that is made of the weights as they are now.

        Returns:
            A check, which raises a UserError if they have been written since.
        """
        weights = self.checkpoint(self.weights)
        began = written(weights)

        def check() -> None:
            if written(weights) != began:
                raise UserError(
                    f"{self.folder} was trained on meanwhile: run this again when it has ended"
                )

        return check

    def forget(self) -> None:
        """Remove what was made of weights that are about to change, or have.

        What cannot be removed is told of: the weights are worth more.
        """
        files = [self.folder / name for name in (*GRAPHS, PAGE, FORMS)]
        for split in SPLITS:
            pictures = self.pictures(split).glob("*.png")
            files += [self.evaluation(split), self.latents(split), *pictures]
        for file in files:
            with suppress(OSError):
                file.unlink()
        boards = [self.board(split) for split in SPLITS]
        for board in boards:
            shutil.rmtree(board, ignore_errors=True)
        if left := [str(path) for path in (*files, *boards) if os.path.lexists(path)]:
            log.warning("of earlier weights, but could not be removed: %s", ", ".join(left))

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the folder for this process; the system lets go of it however the process ends.

        Raises:
            UserError: another process trains in it, or the workers of one that was killed.
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock(".lock"):
            with self.hold_for_parent():
                for folder in (self.folder, self.checkpoint().parent):
                    remove_leftovers(folder)
            yield

    def wait(self) -> None:
        """Until no process trains in the folder."""
        with FileLock(self.folder / ".lock"):
            pass

    def hold_for_parent(self) -> AbstractContextManager[None]:
        """Keep the folder for a worker, which may outlive the process that holds it by a while."""
        return self._lock(".worker.lock")

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        lock = FileLock(self.folder / name)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(f"{self.folder} is in use by another process") from error
        try:
            yield
        finally:
            lock.release()


def resume_command(folder: Path, changes: Sequence[str] = ()) -> str:
    """What goes on with a run or a sweep, quoted for a shell."""
    allowed = [word for package in packages() for word in ("--allow", package)]
    return shlex.join(["python", "-m", "cvae.resume", str(folder), *changes, *allowed])


def _ending(split: str) -> str:
    """Of the names of what a split's data were looked at for; those of test are plain."""
    return "" if split == "test" else f"_{split}"
