"""What a run remembers of its training: points for TensorBoard, a row an epoch, the best epoch."""

import csv
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from cvae.errors import UserError

LOG_EVERY = 50  # steps between two points in TensorBoard; each costs a few milliseconds


class Recorder(Callback):
    """Keeps the terms of training and of validation, and writes `metrics.csv`.

    The terms come out of `training_step` as tensors and stay so: reading one costs a wait for the
    device, and `LightningModule.log` costs more than the smaller of our nets take for a step.

    Args:
        folder: the run's.

    Attributes:
        latest: the terms of the latest step.
        best: the row of the epoch that the objective calls best; empty before a validation.
        seconds: spent in training steps, validation not counted.
        examples: trained on, over all processes.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.csv"
        self.latest: dict[str, Tensor] = {}
        self.best: dict[str, float] = {}
        self.seconds = 0.0
        self.examples = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps, self._validated = 0, False
        self._started = time.perf_counter()
        self._elapsed = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.latest = {name: value.detach() for name, value in outputs.items()}
        for name, value in self.latest.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.double()
        self._steps += 1
        self.examples += pl_module.batch_size
        if trainer.global_step % LOG_EVERY == 0:
            self._log_step(trainer, pl_module)
        self._elapsed = time.perf_counter() - self._started  # the epoch's validation comes after

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._check_finite(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._check_finite(trainer)
        self.seconds += self._elapsed
        for name, total in self._sums.items():
            mean = trainer.strategy.reduce(total / self._steps, reduce_op="mean")
            pl_module.log(f"train/{name}", mean, logger=False)
        row = self._row(trainer)
        monitor = f"val/{pl_module.objective.monitor}"
        if monitor in row and row[monitor] > self.best.get(monitor, -float("inf")):
            self.best = row
        self._write(row, pl_module.objective.terms)

    def _check_finite(self, trainer: Trainer) -> None:
        broken = [name for name, total in self._sums.items() if not total.isfinite()]
        if broken:
            raise UserError(
                f"training diverged in epoch {trainer.current_epoch + 1}: {', '.join(broken)} "
                "not finite; try a lower optimizer.lr"
            )

    def _row(self, trainer: Trainer) -> dict[str, float]:
        """This epoch's numbers; those of validation if there was one."""
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        for name, value in trainer.callback_metrics.items():
            if name.startswith("train/") or (self._validated and name.startswith("val/")):
                row[name] = float(value)
        return row

    def _log_step(self, trainer: Trainer, pl_module: Any) -> None:
        numbers = {
            name: float(trainer.strategy.reduce(value, reduce_op="mean"))
            for name, value in self.latest.items()
        }
        numbers |= pl_module.objective.settings(pl_module.epochs_done)
        numbers["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        logged = {f"train/{name}": number for name, number in numbers.items()}
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=trainer.global_step)

    @rank_zero_only
    def _write(self, row: dict[str, float], terms: tuple[str, ...]) -> None:
        columns = ["epoch", "step", *(f"train/{name}" for name in terms)]
        columns += [f"val/{name}" for name in terms]
        columns += [f"val/{name}_standard_error" for name in terms]
        columns += ["val/active_units", "val/examples"]
        first = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            if first:
                writer.writeheader()
            writer.writerow(row)
