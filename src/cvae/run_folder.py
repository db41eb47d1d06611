"""Where a run keeps its files, and which process may write them."""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cvae.errors import UserError
from cvae.files import remove_leftovers

MEASURED = ("evaluation.json", "evaluation_val.json", "latents.npz", "latents_val.npz")
EXPORTED = ("model.onnx", "model.int8.onnx", "demo.html", "export.json")


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
    def evaluation(self) -> Path:
        """What `cvae.evaluate` measured on the test data."""
        return self.folder / "evaluation.json"

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

    def forget(self) -> None:
        """Remove what was made of weights that are about to change, or have."""
        pictures = self.folder.glob("pictures*/*.png")
        for path in (*(self.folder / name for name in (*MEASURED, *EXPORTED)), *pictures):
            path.unlink(missing_ok=True)
        for board in self.folder.glob("tensorboard/pictures*"):
            shutil.rmtree(board)

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
