"""Callbacks: what a run shows and writes while it trains."""

import csv
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid, save_image

from cvae.data.module import ImageData
from cvae.errors import UserError
from cvae.model import ConditionalVAE
from cvae.networks import Size
from cvae.noise import Stream, generator
from cvae.objectives import TERMS, NonNegative

LOG_EVERY = 50  # steps between two points in TensorBoard; each costs a few milliseconds
BAR_EVERY = 20
SAMPLES_PER_CONDITION = 8
COLUMNS = (  # of metrics.csv, after epoch and step
    *(f"train/{name}" for name in TERMS),
    *(f"val/{name}" for name in TERMS),
    *(f"val/{name}_standard_error" for name in TERMS),
    "val/active_units",
)


class Recorder(Callback):
    """Keeps the terms of training: points for TensorBoard, means of an epoch, `metrics.csv`.

    The terms come out of `training_step` as tensors and stay so: reading one costs a wait for the
    device, and `LightningModule.log` costs more than the smaller of our nets take for a step.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.csv"
        self.validated = False  # in this epoch
        self.latest: dict[str, Tensor] = {}
        self.sums: dict[str, Tensor] = {}
        self.steps = 0  # of this epoch
        self.seconds = 0.0
        self.examples = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.sums, self.steps, self.validated = {}, 0, False
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.latest = {name: value.detach() for name, value in outputs.items()}
        for name, value in self.latest.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.double()
        self.steps += 1
        self.examples += pl_module.batch_size
        if trainer.global_step % LOG_EVERY == 0:
            self._log_step(trainer, pl_module)
        if trainer.is_last_batch:
            self.seconds += time.perf_counter() - self._started

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        for name, total in self.sums.items():
            mean = trainer.strategy.reduce(total / self.steps, reduce_op="mean")
            pl_module.log(f"train/{name}", mean, logger=False)
        self._write_row(trainer)

    @property
    def images_per_second(self) -> float:
        """Training images a second over all processes, validation not counted."""
        return self.examples / self.seconds if self.seconds else 0.0

    def best(self, monitor: str | None) -> dict[str, float]:
        """The `val/…` numbers of the epoch with the highest monitored one, and that as `best`."""
        if monitor is None:
            return {}
        with self.path.open(newline="") as file:
            validated = [row for row in csv.DictReader(file) if row[monitor]]
        row = max(validated, key=lambda row: float(row[monitor]))
        shown = {name: float(value) for name, value in row.items() if name.startswith("val/")}
        return shown | {"best": shown[monitor], "best_epoch": int(row["epoch"])}

    def _log_step(self, trainer: Trainer, pl_module: Any) -> None:
        means = {
            f"train/{name}": float(trainer.strategy.reduce(value, reduce_op="mean"))
            for name, value in self.latest.items()
        }
        means["train/beta"] = pl_module.objective.beta_at(pl_module.epochs_done)
        means["train/learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        for logger in trainer.loggers:
            logger.log_metrics(means, step=trainer.global_step)

    @rank_zero_only
    def _write_row(self, trainer: Trainer) -> None:
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        for name in COLUMNS:
            if name in trainer.callback_metrics and (self.validated or name.startswith("train/")):
                row[name] = float(trainer.callback_metrics[name])
        first = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=["epoch", "step", *COLUMNS], restval="")
            if first:
                writer.writeheader()
            writer.writerow(row)


class Bar(TQDMProgressBar):
    """A progress bar with the ELBO's terms of the latest step and of the latest validation.

    Args:
        recorder: holds the terms of the latest step.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(refresh_rate=BAR_EVERY)
        self.recorder = recorder

    def get_metrics(self, trainer: Trainer, pl_module: Any) -> dict[str, Any]:
        shown = {name: f"{float(value):.2f}" for name, value in self.recorder.latest.items()}
        if (elbo := trainer.callback_metrics.get("val/elbo")) is not None:
            shown["val/elbo"] = f"{float(elbo):.2f}"
        return shown


class Pictures(Callback):
    """Reconstructions and samples, as PNG in the run's folder and in TensorBoard.

    Args:
        every_epochs: how often TensorBoard gets them; the files are written at the end.
    """

    def __init__(self, every_epochs: Size) -> None:
        self.every_epochs = every_epochs

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if (trainer.current_epoch + 1) % self.every_epochs == 0:
            self._log(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._log(trainer, pl_module)
        self._save(trainer, pl_module)

    @rank_zero_only
    def _log(self, trainer: Trainer, pl_module: Any) -> None:
        for logger in trainer.loggers:
            board: SummaryWriter = logger.experiment  # type: ignore[attr-defined]
            for name, picture in self.draw(trainer, pl_module).items():
                board.add_image(name, picture, trainer.global_step)
            kl = pl_module.kl_per_dimension
            board.add_histogram("kl_per_dimension", kl, trainer.global_step)

    @rank_zero_only
    def _save(self, trainer: Trainer, pl_module: Any) -> None:
        folder = Path(trainer.default_root_dir) / "pictures"
        folder.mkdir(exist_ok=True)
        for name, picture in self.draw(trainer, pl_module).items():
            save_image(picture, folder / f"{name}.png")

    @torch.no_grad()
    def draw(self, trainer: Trainer, pl_module: Any) -> dict[str, Tensor]:
        """Grids (3, H, W) in [0, 1]: ten examples over their reconstructions; samples from p(z|x).

        A column of `samples` is a condition, a row is one z-noise for all of them.
        """
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        model: ConditionalVAE = pl_module.model
        view = data.view
        x, y = data.shown(pl_module.device)
        posterior = model.encoder(x, y)
        reconstructed = model.decoder(x, posterior.mean).mean
        conditions = view.showcase(x)
        noise = torch.randn(
            (SAMPLES_PER_CONDITION, 1, model.latent_dim), generator=generator(Stream.PICTURES)
        )
        noise = noise.expand(-1, len(conditions), -1).to(x.device)
        samples = model.sample(conditions, noise).mean
        rows = torch.stack([view.picture(x, y), view.picture(x, reconstructed)])
        return {
            "reconstructions": _grid(rows),
            "samples": _grid(view.picture(conditions, samples)),
        }


class EarlyStopping(lightning_callbacks.EarlyStopping):
    """Lightning's early stopping on what the objective says, once its warm-up has ended.

    Args:
        patience: validations without an improvement.
        min_delta: nats that count as an improvement.

    Raises:
        UserError: there is no validation data to look at.
    """

    def __init__(self, patience: Size, min_delta: NonNegative) -> None:
        super().__init__(
            "", min_delta=min_delta, patience=patience, mode="max", check_on_train_epoch_end=False
        )

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        if not data.has_validation:
            raise UserError(
                "callbacks=early_stopping needs validation data, which data.split=full has none "
                "of: leave out one of them"
            )
        self.monitor = f"val/{pl_module.objective.monitor}"

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if pl_module.epochs_done >= pl_module.objective.warmup_epochs:
            super().on_validation_end(trainer, pl_module)


def _grid(rows: Tensor) -> Tensor:
    """Pictures of (rows, columns, 1, H, W) as one picture (3, H', W'), each pixel twice as big."""
    grid = make_grid(rows.flatten(0, 1).float().clamp(0, 1).cpu(), nrow=rows.shape[1])
    return grid.repeat_interleave(2, -1).repeat_interleave(2, -2)
