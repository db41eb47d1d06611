"""What a trainer's options may not be."""

import torch

from cvae.errors import UserError
from cvae.run import Config

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def check_trainer(config: Config) -> None:
    """Refuse what Lightning would accept and this program, or this machine, cannot do.

    Raises:
        UserError: naming the option and what to give instead.
    """
    options = config["trainer"]
    accelerator, precision = options["accelerator"], options["precision"]
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError(
            f"trainer.accelerator={accelerator}: no GPU that torch {torch.__version__} can use "
            "is here: choose trainer=cpu"
        )
    for name in ("fast_dev_run", "overfit_batches"):
        if options.get(name):
            raise UserError(f"trainer.{name} replaces the data's order: use experiment=smoke")
    if options.get("accumulate_grad_batches", 1) != 1:
        raise UserError("trainer.accumulate_grad_batches: give a larger data.batch_size instead")
    if precision not in PRECISIONS:
        raise UserError(
            f"trainer.precision={precision}: densities are computed in float32, so it has to be "
            f"one of {', '.join(PRECISIONS)}"
        )
    if options["limit_test_batches"] == 0:
        raise UserError("trainer.limit_test_batches=0: a run ends with its test, give 1 or more")
    if (
        precision == "16-mixed"
        and options["gradient_clip_val"]
        and config["optimizer"].get("fused")
    ):
        # it unscales its gradients itself, too late to clip them
        raise UserError(
            "trainer.gradient_clip_val with trainer.precision=16-mixed needs optimizer.fused=false"
        )
