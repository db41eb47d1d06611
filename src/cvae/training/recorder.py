"""What a run remembers of its training: points for TensorBoard, a row an epoch, the best epoch."""

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from cvae.files import write_atomically

KEPT = ("rows", "best", "seconds", "examples", "_steps", "_validation")  # in checkpoints
LOG_EVERY = 50  # steps between two points in TensorBoard; each costs a few milliseconds


class Recorder(Callback):
    """Keeps the terms of training and of validation, and writes `metrics.csv`.

    The terms come out of `training_step` as one tensor, (T,), nats, and are read every LOG_EVERY
    steps: `LightningModule.log` at each would cost more than the smaller of our nets take for it.
    All that it keeps is in the checkpoints, so that a resumed run tells of the whole.

    Args:
        folder: the run's.
        names: of the objective's terms.

    Attributes:
        latest: the terms of the latest step, in that order.
        rows: of `metrics.csv`, one an epoch.
        best: validation's numbers, epoch and step where the objective's monitor was highest.
        wall: seconds since the run began, pauses between interruption and resumption not counted.
        seconds: of these, spent in training steps.
        examples: trained on, over all processes.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.path, self.names = folder / "metrics.csv", names
        self.latest = torch.full((len(names),), torch.nan)
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, float] = {}
        self.seconds, self.examples = 0.0, 0
        self._sums = torch.zeros(len(names), dtype=torch.float64)  # over this epoch's steps
        self._steps = 0
        self._validation: dict[str, float] = {}  # the latest of this epoch
        self._started = time.perf_counter()

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._started

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self.trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in KEPT}
        return {**kept, "wall": self.wall, "sums": self._over_ranks(self._sums)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self.trainer.training:
            return  # the test's weights may be of an epoch long before the last
        for name in KEPT:
            setattr(self, name, state_dict[name])
        self._sums = state_dict["sums"]
        self._started = time.perf_counter() - state_dict["wall"]

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._sums = self._sums.to(trainer.strategy.root_device)
        # an epoch that max_steps ended early, and that now goes on, has a row already
        self.rows = [row for row in self.rows if row["epoch"] <= trainer.current_epoch]
        self._clock = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._sums, self._steps, self._validation = torch.zeros_like(self._sums), 0, {}
        self._clock = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.latest = outputs["terms"]
        self._sums += self.latest
        self._steps += 1
        _count_points(trainer)
        self.examples += pl_module.batch_size
        if trainer.global_step % LOG_EVERY == 0:
            self._log_step(trainer, pl_module)
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        for name in [name for name in trainer.callback_metrics if name.startswith("val/")]:
            del trainer.callback_metrics[name]  # of the last one, which Lightning keeps

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._clock = time.perf_counter()  # validation is not training
        metrics = trainer.callback_metrics.items()
        values = {name: float(value) for name, value in metrics if name.startswith("val/")}
        self._validation = values
        monitor = f"val/{pl_module.objective.monitor}"
        if values[monitor] > self.best.get(monitor, -float("inf")):
            self.best = self._position(trainer) | values

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        means = (self._over_ranks(self._sums) / self._steps).tolist()
        train = {f"train/{name}": mean for name, mean in zip(self.names, means, strict=True)}
        self.rows = [*self.rows, self._position(trainer) | train | self._validation]
        self._write()
        _count_points(trainer)

    def _position(self, trainer: Trainer) -> dict[str, float]:
        return {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}

    def _over_ranks(self, value: Tensor) -> Tensor:
        """The mean over the processes, each of which has the same number of examples in a step."""
        reduced: Tensor = self.trainer.strategy.reduce(value.clone(), reduce_op="mean")
        return reduced

    def _log_step(self, trainer: Trainer, pl_module: Any) -> None:
        numbers = dict(zip(self.names, self._over_ranks(self.latest).tolist(), strict=True))
        numbers |= pl_module.objective.settings(pl_module.epochs_done)
        numbers["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        logged = {f"train/{name}": number for name, number in numbers.items()}
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=trainer.global_step)

    @rank_zero_only
    def _write(self) -> None:
        # of each row: a callback of the user's own may log further `val/…`, in some epochs only
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue().encode())  # whole, whenever the run is killed


def _count_points(trainer: Trainer) -> None:
    """Let Lightning log validation and test at the number of steps done, as we do for training.

    Its own count is one less in validation, and off by one after some resumptions.
    """
    loop = trainer.fit_loop.epoch_loop
    assert hasattr(loop, "_batches_that_stepped")
    loop._batches_that_stepped = trainer.global_step
