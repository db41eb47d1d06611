"""Train, validate and test the run that a folder describes, in this process."""

import json
import logging
import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
import torchmetrics
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cvae import __version__
from cvae.checkpoint import read_checkpoint
from cvae.data.base import InMemory
from cvae.errors import UserError
from cvae.files import write_atomically
from cvae.run import Run
from cvae.training.assembly import make_module, make_trainer
from cvae.training.compilation import compiler_errors
from cvae.training.module import Training
from cvae.training.output import unbroken_output
from cvae.training.recorder import Recorder
from cvae.training.report import table

log = logging.getLogger(__name__)
HPARAMS = (
    "seed",
    "model",
    "prior",
    "likelihood",
    "network",
    "objective",
    "optimizer",
    "schedule",
    "data",
    "trainer",
)

# Messages that are true of other programs than this one.
QUIET = (
    "The '.*_dataloader' does not have many workers",  # batches are sliced out of memory
    "It is recommended to use .*sync_dist=True",  # Moments are already summed over processes
    "The number of training batches .* is smaller than the logging",  # Recorder logs, not Lightning
    "You're resuming from a checkpoint that ended before the epoch",  # the data keep the place
    "Total length of `list` across ranks is zero",  # data.split=full has no validation
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use of torch
)


def fit(run: Run) -> dict[str, Any]:
    """Train with the run's config, test with its best weights, and write all into its folder.

    Returns:
        What `metrics.json` holds.

    Raises:
        UserError: the config or the data cannot be used.
    """
    quieten()
    data: InMemory = run.part(InMemory, "data")
    seed_everything(run.config["seed"], verbose=False)  # of the weights; noise has its own
    last = run.checkpoint("last")
    step = _step(last) if last.is_file() else None
    module = make_module(run, new=step is None)
    recorder = Recorder(run.folder, module.objective.terms)
    trainer = make_trainer(run, recorder, step)
    log.info("training on %s", _devices(trainer))
    if step is not None:
        log.info("going on from step %s", step)
    with _mistakes(), compiler_errors(), unbroken_output():
        trainer.fit(module, datamodule=data, ckpt_path=None if step is None else last)
        if not last.is_file():
            raise UserError("nothing was trained: give trainer.max_epochs or max_steps 1 or more")
        if trainer.is_global_zero and not run.metrics.is_file():  # which is there if nothing was
            run.forget()  # what was looked at while it trained
        trainer.test(module, data, ckpt_path=run.checkpoint(run.weights), verbose=False)
    results = _results(run, trainer, module, data, recorder)
    if trainer.is_global_zero:
        _record(run, trainer, results)
    return results


def _step(last: Path) -> int:
    """The step of the checkpoint that a run goes on from.

    Raises:
        UserError: it does not say.
    """
    step = read_checkpoint(last).get("global_step")
    if not isinstance(step, int):
        raise UserError(
            f"{last} has no global_step: put the file back that belongs to the run, or start a new "
            "run"
        )
    return step


def _results(
    run: Run, trainer: Trainer, module: Training, data: InMemory, recorder: Recorder
) -> dict[str, Any]:
    """What `metrics.json` holds."""
    best = recorder.best if run.weights == "best" else {}  # of those that may have been lost
    return {
        **{name: float(value) for name, value in trainer.callback_metrics.items()},
        **{name: value for name, value in best.items() if name.startswith("val/")},
        "best": best.get(f"val/{module.objective.monitor}"),
        "best_epoch": best.get("epoch"),
        "weights": run.weights,
        "epochs": len(recorder.rows),
        "steps": trainer.global_step,
        "wall_seconds": recorder.wall,
        "images_per_second": recorder.examples / recorder.seconds,
        "seed": run.config["seed"],
        "device": _devices(trainer),
        "threads": torch.get_num_threads(),
        "density": run.density,
        "latent_dim": module.model.latent_dim,
        "data": data.record,
        "versions": _versions(),
    }


@contextmanager
def _mistakes() -> Iterator[None]:
    """Say in one line what Lightning or torch refuse because of the config, folder or machine."""
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from error
    except RuntimeError as error:
        # on the CPU torch has no class of its own for it
        if not (isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)):
            raise
        raise UserError(
            "not enough memory: train with a smaller data.batch_size, network or num_samples "
            f"({' '.join(str(error).split())})"
        ) from error


def _record(run: Run, trainer: Trainer, results: Mapping[str, Any]) -> None:
    """Write the results where a person, a program and TensorBoard look for them."""
    finals = {name: value for name, value in results.items() if name.startswith("test/")}
    settings = {key: run.config[key] for key in HPARAMS} | {"density": results["density"]}
    for logger in trainer.loggers:
        logger.log_hyperparams(settings, metrics=finals)
        logger.finalize("success")
    write_atomically(run.metrics, json.dumps(results, indent=2).encode())  # the sign of the end
    log.info("%s\n%s", run.config["name"], table(results, run.folder))


def quieten() -> None:
    """Silence Lightning's advertisements and the warnings that do not apply here, by name."""
    for name in ("pytorch", "fabric"):
        for part in ("utilities.rank_zero", "utilities.distributed"):
            logging.getLogger(f"lightning.{name}.{part}").setLevel(logging.WARNING)
    for message in QUIET:
        warnings.filterwarnings("ignore", message)


def _devices(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{trainer.world_size} x {device.type} ({name}), precision {trainer.precision}"


def _versions() -> dict[str, str]:
    return {
        "cvae": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "lightning": str(lightning.__version__),
        "torchmetrics": str(torchmetrics.__version__),
    }
