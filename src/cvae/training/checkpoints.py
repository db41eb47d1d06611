"""When a run writes its checkpoints, and how it stops when it is asked to."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.migration import migrate_checkpoint

from cvae.checkpoint import read_checkpoint, write_checkpoint
from cvae.errors import Interrupted, UserError
from cvae.interruption import interrupt
from cvae.ranges import Positive
from cvae.run import Run
from cvae.training.recorder import Recorder
from cvae.training.signals import handle_signals


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's way to the project's own checkpoint files."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        write_checkpoint(checkpoint, Path(path), before=storage_options)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        content = read_checkpoint(Path(path))
        try:
            migrate_checkpoint(content)  # Lightning does so next, and would not name the file
        except Exception as error:
            raise UserError(
                f"{path} is not a checkpoint of Lightning's ({type(error).__name__}: {error}): put "
                "the file back that belongs to the run, or start a new run"
            ) from error
        return content


class Checkpoints(Checkpoint):
    """Writes a run's checkpoints, and stops the run when a signal asks for it.

    `last.ckpt` is written at each epoch's end, every so often within, and before stopping;
    `best.ckpt` when the recorder has a new best.

    A signal is granted between two steps, where a run can be taken up again to the last bit. All
    processes stop at the same step. A second signal ends the process at once, and so does any
    during the test, which can be done again.

    Args:
        run: whose folder they are written to.
        recorder: knows the best.
        every_minutes: the time between two checkpoints within an epoch; None leaves them out.
    """

    def __init__(self, run: Run, recorder: Recorder, every_minutes: Positive | None = None) -> None:
        self.run, self.recorder = run, recorder
        self.interval = float("inf") if every_minutes is None else 60 * every_minutes
        self._asked = 0  # the signal's number
        self._forgotten = False

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        assert hasattr(trainer.fit_loop, "_iteration_based_training")
        # With max_steps, Lightning would take up a run at an epoch's end as if in the middle of it.
        trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse a checkpoint that lacks what Lightning would do without, and begin at step 0."""
        if trainer.training:
            data = type(trainer.datamodule).__qualname__  # type: ignore[attr-defined]
            _check_keys(checkpoint, ("optimizer_states", "lr_schedulers", data))
            _check_keys(checkpoint["callbacks"], (self.recorder.state_key,))
            _check_keys(checkpoint["loops"]["fit_loop"], tuple(trainer.fit_loop.state_dict()))

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """What max_steps or max_time end early is an epoch to go on in, when there is more time."""
        progress = checkpoint["loops"]["fit_loop"]
        batches = progress["epoch_loop.batch_progress"]["current"]["ready"]
        if batches < trainer.num_training_batches:
            for count in progress["epoch_progress"].values():
                count["processed"] = count["completed"]

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Say which file does not fit, when something is wrong with what is in it."""
        restoring = trainer._checkpoint_connector._loaded_checkpoint
        ours = isinstance(exception, UserError | MisconfigurationException)
        if restoring and isinstance(exception, Exception) and not ours:
            raise self._misfit(trainer, f"{type(exception).__name__}: {exception}") from exception

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._saved = time.monotonic()
        for parameter, state in trainer.optimizers[0].state.items():
            for name in ("exp_avg", "exp_avg_sq"):  # torch would find out in the middle of a step
                if name in state and getattr(state[name], "shape", None) != parameter.shape:
                    raise self._misfit(trainer, f"{name} is of another shape than its weights")
        if trainer.is_global_zero:
            self.run.metrics.unlink(missing_ok=True)  # of an earlier end
        handle_signals(self._ask)

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._stop_if_asked(trainer)  # after the last checkpoint of training
        handle_signals(interrupt)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = self._asked > 0 or time.monotonic() - self._saved > self.interval
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

    def _ask(self, signum: int, _frame: object) -> None:
        if self._asked:
            raise Interrupted(signum)
        self._asked = signum

    def _stop_if_asked(self, trainer: Trainer) -> None:
        """Stop with the signal of whichever process got one."""
        asked = torch.tensor(self._asked, device=trainer.strategy.root_device)
        signum = int(trainer.strategy.reduce(asked, reduce_op="max"))
        if signum:
            raise Interrupted(signum)

    def _misfit(self, trainer: Trainer, reason: str) -> UserError:
        return UserError(
            f"{trainer.ckpt_path} does not fit {self.run.folder}/config.yaml ({reason}): "
            "put the file back that belongs to it, or start a new run"
        )

    def _save(self, trainer: Trainer, name: str) -> None:
        if not all(bool(p.isfinite().all()) for p in trainer.lightning_module.parameters()):
            raise UserError(
                f"training diverged: weights are not finite after step {trainer.global_step}, the "
                "checkpoint before is kept; try a lower optimizer.lr"
            )
        for logger in trainer.loggers:
            logger.save()  # or else a kill would lose points that no resumed run makes again
        path = self.run.checkpoint(name)
        trainer.save_checkpoint(path, weights_only=False, storage_options=self._forget)
        if name == "last":
            self._saved = time.monotonic()

    def _forget(self) -> None:
        """Remove what was made of the old weights when the new ones are about to replace them.

        Earlier, a save that fails would lose it for nothing; later, a kill would leave it beside
        weights that it does not belong to.
        """
        if not self._forgotten:
            self.run.forget()
            self._forgotten = True


def _check_keys(content: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")


def _between(trainer: Trainer, batch_idx: int) -> bool:
    """Whether the next thing is another step of this epoch, not validation and not the end."""
    every = trainer.val_check_batch
    done = batch_idx + 1 if trainer.check_val_every_n_epoch else trainer.global_step
    validates = every is not None and done % every == 0
    ends = batch_idx + 1 == trainer.num_training_batches or trainer.global_step == trainer.max_steps
    return not (validates or ends or trainer.should_stop)
