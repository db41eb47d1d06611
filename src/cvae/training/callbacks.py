"""Callbacks: what a run shows while it trains, and when it stops early."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid, save_image

from cvae.data.base import InMemory
from cvae.errors import UserError
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator
from cvae.pictures.grid import noise_of_rows, samples
from cvae.ranges import NonNegative, Size
from cvae.training.recorder import Recorder

log = logging.getLogger(__name__)
BAR_EVERY = 20  # steps between two looks at the terms
SAMPLES_PER_CONDITION = 10


class Bar(TQDMProgressBar):
    """A progress bar with the ELBO's terms of the latest step and of the latest validation.

    Args:
        recorder: holds the terms of the latest step.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(refresh_rate=BAR_EVERY)
        self.recorder = recorder

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(
            f"Epoch {trainer.current_epoch + 1}"
        )  # as elsewhere

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        with suppress(TypeError):  # there is none yet
            self.train_progress_bar.close()  # what is told of next begins on a line of its own

    def get_metrics(self, trainer: Trainer, pl_module: Any) -> dict[str, Any]:
        terms = zip(self.recorder.names, self.recorder.latest.tolist(), strict=True)
        shown = {name: f"{value:.2f}" for name, value in terms}
        monitor = f"val/{pl_module.objective.monitor}"
        if (value := trainer.callback_metrics.get(monitor)) is not None:
            shown[monitor] = f"{float(value):.2f}"
        return shown


class Lines(Callback):
    """A line in the log at each epoch's end, for files and for jobs that share a terminal.

    Args:
        name: of the run.
        recorder: holds the rows of the epochs.
    """

    def __init__(self, name: str, recorder: Recorder) -> None:
        self.name, self.recorder = name, recorder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        row = self.recorder.rows[-1]
        part = "val" if "val/elbo" in row else "train"
        term = f"{part}/{pl_module.objective.monitor}"  # by which the best weights are chosen
        log.info("%s: epoch %d, %s %.2f", self.name, row["epoch"], term, row[term])


class Pictures(Callback):
    """Reconstructions and samples, as PNG in the run's folder and in TensorBoard.

    Args:
        every_epochs: how often TensorBoard gets them; the files are written at the end.
    """

    def __init__(self, every_epochs: Size) -> None:
        self.every_epochs = every_epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if (trainer.current_epoch + 1) % self.every_epochs == 0:
            self._log(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._log_kl(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._log_kl(trainer, pl_module, "test")
        self._save(trainer, pl_module)

    @rank_zero_only
    def _log(self, trainer: Trainer, pl_module: Any) -> None:
        pictures = self.draw(trainer, pl_module)
        for board in _boards(trainer):
            for name, picture in pictures.items():
                board.add_image(name, picture, trainer.global_step)

    @rank_zero_only
    def _log_kl(self, trainer: Trainer, pl_module: Any, split: str) -> None:
        kl = pl_module.kl_per_dimension
        if not len(kl):  # TensorBoard draws no histogram of nothing
            return
        for board in _boards(trainer):
            board.add_histogram(f"{split}/kl_per_dimension", kl, trainer.global_step)

    @rank_zero_only
    def _save(self, trainer: Trainer, pl_module: Any) -> None:
        folder = Path(trainer.default_root_dir) / "pictures"
        folder.mkdir(exist_ok=True)
        for name, picture in self.draw(trainer, pl_module).items():
            save_image(picture, folder / f"{name}.png")

    @torch.no_grad()
    def draw(self, trainer: Trainer, pl_module: Any) -> dict[str, Tensor]:
        """Grids (3, H, W) in [0, 1]: examples over their reconstructions; samples from p(z|x)."""
        data: InMemory = trainer.datamodule  # type: ignore[attr-defined]
        model: ConditionalVAE = pl_module.model
        x, y = data.shown(pl_module.device)
        reconstructed = model.decoder(x, model.encoder(x, y).mean).mean
        rows = [data.view.picture(x, y), data.view.picture(x, reconstructed)]
        conditions, draws = data.view.showcase(x), generator(Stream.PICTURES)
        noise = noise_of_rows(model, SAMPLES_PER_CONDITION, len(conditions), draws).to(x.device)
        return {
            "reconstructions": _grid(torch.stack(rows)),
            "samples": _grid(samples(model, data.view, conditions, noise, {"truth": y}).images),
        }


class StartAtMean(Callback):
    """Lets the decoder begin at the training data's mean; a checkpoint's weights come after.

    As Burda et al. 2016 trained: tanh networks otherwise stay at that mean for many epochs.
    """

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            data: InMemory = trainer.datamodule  # type: ignore[attr-defined]
            pl_module.model.decoder.start_at(data.mean())


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
        data: InMemory = trainer.datamodule  # type: ignore[attr-defined]
        if not data.has_validation or trainer.limit_val_batches == 0:
            raise UserError(
                "callbacks=early_stopping needs validation data; there is none with "
                "data.split=full, trainer.limit_val_batches=0, or data.root=FOLDER without a val"
            )
        self.monitor = f"val/{pl_module.objective.monitor}"

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        if self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            log.info("early stopping ended the training in epoch %s", self.stopped_epoch + 1)
            trainer.should_stop = True  # which checkpoints do not tell

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if pl_module.epochs_done >= pl_module.objective.warmup_epochs:
            super().on_validation_end(trainer, pl_module)


def _boards(trainer: Trainer) -> list[SummaryWriter]:
    return [logger.experiment for logger in trainer.loggers]  # type: ignore[attr-defined]


def _grid(rows: Tensor) -> Tensor:
    """Pictures of (rows, columns, 1, H, W) as one picture (3, H', W'), each pixel twice as big."""
    grid = make_grid(rows.flatten(0, 1).float().clamp(0, 1).cpu(), nrow=rows.shape[1])
    return grid.repeat_interleave(2, -1).repeat_interleave(2, -2)
