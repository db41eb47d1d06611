"""What Lightning needs for a run, put together from its config: the module and the trainer."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch.optim import Optimizer

from cvae.build import build
from cvae.config import Config
from cvae.errors import UserError
from cvae.model import ConditionalVAE
from cvae.objectives import Objective
from cvae.run import Run
from cvae.runs import find
from cvae.training.callbacks import Bar, Lines
from cvae.training.checkpoints import CheckpointFiles
from cvae.training.module import Training
from cvae.training.recorder import Recorder
from cvae.training.schedules import Schedule
from cvae.wrappers import WithoutLatent


def make_trainer(run: Run, recorder: Recorder, step: int | None) -> Trainer:
    """The config's trainer with its logger and callbacks.

    Args:
        run: to train.
        recorder: what remembers its training.
        step: of the checkpoint that it goes on from; None for a new run.

    Raises:
        UserError: a callback is none.
    """
    config = run.config
    bar = config["trainer"]["enable_progress_bar"]
    callbacks = [
        recorder,  # first: the others look at its rows
        Bar(recorder) if bar else Lines(run.folder.name, recorder),
        *(run.part(Callback, "callbacks", name) for name in config["callbacks"]),
        build(config["checkpoint"], "checkpoint", run=run, recorder=recorder),
    ]
    logger = build(
        config["logger"],
        "logger",
        save_dir=run.folder,
        name="tensorboard",
        version="",
        purge_step=0 if step is None else step + 1,  # points that will be made again
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
    """How to train the model, which begins with fresh weights, but for a first guess if new.

    Raises:
        UserError: the objective or the schedule is none.
    """
    config = run.config
    model = run.build_model()
    guess = config["model"].get("guess")
    if new and isinstance(guess, str):
        _load_guess(model, run, guess)
    return Training(
        model=model,
        objective=run.part(Objective, "objective"),
        optimizer=lambda parameters: run.part(Optimizer, "optimizer", params=parameters),
        schedule=run.part(Schedule, "schedule"),
        seed=config["seed"],
        compiled=config["compile"],
    )


def _load_guess(model: ConditionalVAE, run: Run, folder: str) -> None:
    """Give the model's first guess the weights of a finished run of p(y|x).

    Raises:
        UserError: the folder holds none, one that has not ended, or one of other networks, another
            likelihood or data.
    """
    answer = find(str(Path(folder).resolve()))  # a folder: not `latest`, which may be any
    if not answer.metrics.is_file():
        raise UserError(f"model.guess={folder} is a run that has not come to its end")
    wanted, found = _answers(run.config), _answers(answer.config)
    if differing := [key for key in wanted if wanted[key] != found[key]]:
        raise UserError(f"model.guess={folder} is a run with another {', '.join(differing)}")
    decoder = answer.load_model().decoder
    if model.first_guess is None or not isinstance(decoder, WithoutLatent):
        raise UserError(f"model.guess={folder} is not a run of model=deterministic")
    model.first_guess.load_state_dict(decoder.density.state_dict())


def _answers(config: Config) -> dict[str, Any]:
    """What of a config decides which p(y|x) is learned, and from which images."""
    return {
        **{key: config[key] for key in ("network", "likelihood")},
        **{
            f"data.{key}": config["data"].get(key)
            for key in ("source", "view", "binarize", "split")
        },
    }
