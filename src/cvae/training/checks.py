"""What a run's config may not ask for, though each of its values alone is one that it may have."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer

from cvae.build import check_arguments
from cvae.data.base import InMemory
from cvae.errors import UserError
from cvae.run import Config

log = logging.getLogger(__name__)

# of the trainer's options, those that this program looks at itself
READ = {"accelerator", "precision", "max_epochs", "gradient_clip_val", "enable_progress_bar"}


def check_trainer(config: Config) -> None:
    """Refuse what this program, or this machine, cannot do, before anything is built.

    Raises:
        UserError: naming the option and what to give instead.
    """
    check_arguments(config)
    options = config["trainer"]
    if missing := READ - options.keys():
        raise UserError(f"the config has no trainer.{', trainer.'.join(sorted(missing))}")
    accelerator, gpu = options["accelerator"], torch.cuda.is_available()
    if accelerator in ("gpu", "cuda") and not gpu:
        raise UserError(
            f"trainer.accelerator={accelerator}: no GPU that torch {torch.__version__} can use "
            "is here: choose trainer=cpu"
        )
    if accelerator == "auto" and torch.backends.mps.is_available():
        raise UserError(  # where numbers are summed in float64
            "trainer.accelerator=auto is MPS here, which has no float64: choose trainer=cpu"
        )
    _check_precision(config["optimizer"], options, gpu and accelerator != "cpu")
    warmup, epochs = config["objective"].get("warmup_epochs") or 0, options["max_epochs"]
    if epochs and 0 < epochs <= warmup:
        log.warning(
            "objective.warmup_epochs=%s: with trainer.max_epochs=%s all of the training is its "
            "warm-up",
            warmup,
            epochs,
        )


def _check_precision(optimizer: Mapping[str, Any], options: Mapping[str, Any], gpu: bool) -> None:
    precision = options["precision"]
    if precision == "16-mixed" and not gpu:  # Lightning would train in bfloat16, and say otherwise
        raise UserError("trainer.precision=16-mixed is for GPUs: give trainer.precision=bf16-mixed")
    if precision != "32-true" and options["gradient_clip_val"] and optimizer.get("fused"):
        # it unscales its gradients itself, too late to clip them; Lightning refuses bfloat16 too
        raise UserError(
            f"trainer.gradient_clip_val with trainer.precision={precision} needs a run "
            "with optimizer.fused=false"
        )


def check_interval(trainer: Trainer) -> None:
    """Refuse to validate every so many batches if there are fewer in an epoch, of data at hand.

    Raises:
        UserError: naming both.
    """
    data: InMemory = trainer.datamodule  # type: ignore[attr-defined]
    every, limit = trainer.val_check_interval, trainer.limit_train_batches
    batches = len(data.datasets["train"]) // data.batch_size
    batches = min(limit, batches) if isinstance(limit, int) else int(limit * batches)
    if isinstance(every, int) and every > batches and trainer.check_val_every_n_epoch:
        raise UserError(
            f"trainer.val_check_interval={every} is more than the {batches} batches of an epoch: "
            "give fewer, or a part of the epoch such as 0.5"
        )
