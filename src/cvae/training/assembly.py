"""What Lightning needs for a run, put together from its config: the module and the trainer."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer

from cvae.build import build
from cvae.errors import UserError
from cvae.model import ConditionalVAE
from cvae.run import Run, find
from cvae.training.callbacks import Bar
from cvae.training.checkpoints import CheckpointFiles
from cvae.training.module import Training
from cvae.training.recorder import Recorder


def make_trainer(run: Run, recorder: Recorder, begun: Mapping[str, Any] | None) -> Trainer:
    """The config's trainer with its logger and callbacks, new or going on from a checkpoint."""
    config = run.config
    callbacks = [
        recorder,
        *build(config["callbacks"], "callbacks").values(),
        build(config["checkpoint"], "checkpoint", run=run, recorder=recorder),
    ]
    if config["trainer"]["enable_progress_bar"]:
        callbacks.append(Bar(recorder))
    logger = build(
        config["logger"],
        "logger",
        save_dir=run.folder,
        name="tensorboard",
        version="",
        purge_step=begun["global_step"] + 1 if begun else 0,  # points that will be made again
    )
    trainer: Trainer = build(
        config["trainer"],
        "trainer",
        logger=logger,
        callbacks=callbacks,
        plugins=[CheckpointFiles()],
        use_distributed_sampler=False,  # the samplers give each rank its own share
        num_sanity_val_steps=0,
        default_root_dir=run.folder,
    )
    return trainer


def make_module(run: Run, new: bool) -> Training:
    """The model with fresh weights and how to train it; a new run's first guess may be given."""
    config = run.config
    model = run.build_model()
    if new and config["guess_from"] is not None:
        _load_guess(model, config["guess_from"])
    return Training(
        model=model,
        objective=build(config["objective"], "objective"),
        optimizer=lambda parameters: build(config["optimizer"], "optimizer", params=parameters),
        schedule=build(config["schedule"], "schedule"),
        batch_size=config["data"]["batch_size"],
        seed=config["seed"],
        compiled=config["compile"],
    )


def _load_guess(model: ConditionalVAE, folder: str) -> None:
    """Give the model's first guess the weights of a finished run of p(y|x)."""
    if model.first_guess is None:
        raise UserError(f"guess_from={folder} is for a model with a first guess: model.guess=true")
    answer = find(folder).load_model().decoder
    try:
        model.first_guess.load_state_dict(answer.state_dict())
    except RuntimeError as error:
        raise UserError(
            f"guess_from={folder}: not a run of model=deterministic with this network, likelihood "
            "and data"
        ) from error
