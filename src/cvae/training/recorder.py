"""What a run remembers of its training: points for TensorBoard, a row an epoch, the best epoch."""

import csv
import io
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from cvae.files import write_atomically

KEPT = ("rows", "best", "seconds", "examples", "_steps", "_validation")  # in checkpoints
LOG_EVERY = 50  # steps between two points in TensorBoard; each costs a few milliseconds


class Recorder(Callback):
    """Keeps the terms of training and of validation, and writes `metrics.csv`.

    The terms come out of `training_step` as tensors and stay so: reading one costs a wait for the
    device, and `LightningModule.log` costs more than the smaller of our nets take for a step.
    All that it keeps is in the checkpoints, so that a resumed run tells of the whole.

    Args:
        folder: the run's.

    Attributes:
        latest: the terms of the latest step.
        rows: of `metrics.csv`, one an epoch.
        best: validation's numbers, epoch and step where the objective's monitor was highest.
        wall: seconds since the run began, pauses between interruption and resumption not counted.
        seconds: of these, spent in training steps.
        examples: trained on, over all processes.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.csv"
        self.latest: dict[str, Tensor] = {}
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, float] = {}
        self.seconds, self.examples = 0.0, 0
        self._sums: dict[str, Tensor] = {}  # of this epoch's steps
        self._steps = 0
        self._validation: dict[str, float] = {}  # the latest of this epoch
        self._started = time.perf_counter()

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._started

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self.trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        sums = {name: self._over_ranks(total) for name, total in self._sums.items()}
        return {
            **{name: getattr(self, name) for name in KEPT},
            "wall": self.wall,
            "sums": sums,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in KEPT:
            setattr(self, name, state_dict[name])
        self._sums = state_dict["sums"]
        self._started = time.perf_counter() - state_dict["wall"]

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        device = trainer.strategy.root_device
        self._sums = {name: total.to(device) for name, total in self._sums.items()}
        self._clock = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._sums, self._steps, self._validation = {}, 0, {}
        self._clock = time.perf_counter()

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
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._clock = time.perf_counter()  # validation is not training
        metrics = trainer.callback_metrics.items()
        values = {name: float(value) for name, value in metrics if name.startswith("val/")}
        self._validation = self._position(trainer) | values
        monitor = f"val/{pl_module.objective.monitor}"
        if values[monitor] > self.best.get(monitor, -float("inf")):
            self.best = self._validation

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        means = {
            f"train/{name}": float(self._over_ranks(total)) / self._steps
            for name, total in self._sums.items()
        }
        self.rows = [*self.rows, self._validation | self._position(trainer) | means]
        self._write(pl_module.objective.terms)

    def _position(self, trainer: Trainer) -> dict[str, float]:
        return {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}

    def _over_ranks(self, value: Tensor) -> Tensor:
        """The mean over the processes, each of which has the same number of examples in a step."""
        reduced: Tensor = self.trainer.strategy.reduce(value.clone(), reduce_op="mean")
        return reduced

    def _log_step(self, trainer: Trainer, pl_module: Any) -> None:
        numbers = {name: float(self._over_ranks(value)) for name, value in self.latest.items()}
        numbers |= pl_module.objective.settings(pl_module.epochs_done)
        numbers["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        logged = {f"train/{name}": number for name, number in numbers.items()}
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=trainer.global_step)

    @rank_zero_only
    def _write(self, terms: tuple[str, ...]) -> None:
        columns = ["epoch", "step", *(f"train/{name}" for name in terms)]
        columns += [f"val/{name}" for name in terms]
        columns += [f"val/{name}_standard_error" for name in terms]
        columns += ["val/active_units", "val/examples"]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue().encode())  # whole, whenever the run is killed
