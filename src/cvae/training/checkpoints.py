"""When a run writes its checkpoints, and how it stops when it is asked to."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from cvae.checkpoint import read_checkpoint, write_checkpoint
from cvae.errors import Interrupted, UserError
from cvae.ranges import Positive
from cvae.run import Run
from cvae.training.recorder import Recorder

# A wish to end; SIGUSR1 is how SLURM announces that it will take the machine away.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's way to the project's own checkpoint files."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))


class Checkpoints(Checkpoint):
    """Writes a run's checkpoints, and stops the run when a signal asks for it.

    `last.ckpt` is written at each epoch's end, every so often within, and before stopping;
    `best.ckpt` when the recorder has a new best.

    A signal is granted between two steps, where a run can be taken up again to the last bit. All
    processes stop at the same step. A second signal ends the process at once.

    Args:
        run: whose folder they are written to.
        recorder: knows the best.
        every_minutes: the time between two checkpoints within an epoch; None leaves them out.
    """

    def __init__(self, run: Run, recorder: Recorder, every_minutes: Positive | None = None) -> None:
        self.run, self.recorder = run, recorder
        self.interval = float("inf") if every_minutes is None else 60 * every_minutes
        self._asked: int | None = None
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._saved = time.monotonic()
        self._handle_signals(self._ask)

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._handle_signals(_interrupt)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = self._asked is not None or time.monotonic() - self._saved > self.interval
        if trainer.strategy.reduce_boolean_decision(due, all=False) and _between(
            trainer, batch_idx
        ):
            self._save(trainer, "last")
            self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self.recorder.best.get("step") == trainer.global_step:
            self._save(trainer, "best")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._save(trainer, "last")
        self._stop_if_asked(trainer)

    def _handle_signals(self, handler: Callable[[int, object], None]) -> None:
        """Take the place of Lightning's handlers, which wait for other processes, until it ends."""
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                self._handlers[signum] = signal.getsignal(signum)
                if callable(self._handlers[signum]):
                    signal.signal(signum, handler)

    def _ask(self, signum: int, _frame: object) -> None:
        if self._asked is not None:
            raise Interrupted(signum)
        self._asked = signum

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self._asked is not None, all=False):
            if self._asked == signal.SIGUSR1:
                self._handlers[signal.SIGUSR1](signal.SIGUSR1, None)  # Lightning asks SLURM back
            raise Interrupted(self._asked or signal.SIGTERM)

    def _save(self, trainer: Trainer, name: str) -> None:
        if not all(bool(p.isfinite().all()) for p in trainer.lightning_module.parameters()):
            raise UserError(
                f"training diverged: weights are not finite after step {trainer.global_step}, the "
                "checkpoint before is kept; try a lower optimizer.lr"
            )
        trainer.save_checkpoint(
            self.run.checkpoint(name), weights_only=False
        )  # with all that goes on
        if name == "last":
            self._saved = time.monotonic()
            if trainer.is_global_zero:
                self.run.metrics.unlink(missing_ok=True)  # they were of an earlier end


def _interrupt(signum: int, _frame: object) -> None:
    raise Interrupted(signum)


def _between(trainer: Trainer, batch_idx: int) -> bool:
    """Whether the next thing is another step of this epoch, not validation and not the end."""
    every = trainer.val_check_batch
    done = (batch_idx + 1, trainer.global_step)
    validates = every is not None and any(count % every == 0 for count in done)
    ends = batch_idx + 1 == trainer.num_training_batches or trainer.global_step == trainer.max_steps
    return not (validates or ends or trainer.should_stop)
