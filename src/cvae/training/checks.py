"""What a run's config may not ask for, though each of its values alone is one that it may have."""

from typing import Any

import torch

from cvae.build import build, check_arguments
from cvae.data.base import InMemory
from cvae.errors import UserError
from cvae.run import Config


def check_trainer(config: Config) -> None:
    """Refuse what this program, or this machine, cannot do, before anything is built.

    Raises:
        UserError: naming the option and what to give instead.
    """
    check_arguments(config)
    options = config["trainer"]
    accelerator = options["accelerator"]
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError(
            f"trainer.accelerator={accelerator}: no GPU that torch {torch.__version__} can use "
            "is here: choose trainer=cpu"
        )
    if (
        options["precision"] == "16-mixed"
        and options["gradient_clip_val"]
        and config["optimizer"].get("fused")
    ):
        # it unscales its gradients itself, too late to clip them
        raise UserError(
            "trainer.gradient_clip_val with trainer.precision=16-mixed needs optimizer.fused=false"
        )
    _check_validation(options, build(config["data"], "data"))


def _check_validation(options: dict[str, Any], data: InMemory) -> None:
    """Refuse to validate every so many batches if there are fewer in an epoch."""
    every, limit = options["val_check_interval"], options["limit_train_batches"]
    if data.num_train is None:
        return  # Lightning will tell
    batches = data.num_train // data.batch_size
    if limit is not None:
        batches = min(limit, batches) if isinstance(limit, int) else int(limit * batches)
    if isinstance(every, int) and every > batches and options["check_val_every_n_epoch"]:
        raise UserError(
            f"trainer.val_check_interval={every} is more than the {batches} batches of an epoch: "
            "give fewer, or a part of the epoch such as 0.5"
        )
