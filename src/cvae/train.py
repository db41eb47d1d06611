"""`python -m cvae.train`: compose a config with Hydra, train it, test it, leave a run's folder."""

import json
import logging
import os
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cvae.command import MISTAKES, log_mistake, log_to, run_command
from cvae.config import key_of
from cvae.errors import Interrupted, UserError
from cvae.run import Run
from cvae.run_folder import resume_command
from cvae.sweep import Jobs, end_sweep, folder_config, stopped
from cvae.training.apart import apart
from cvae.training.beside import is_wanted, run_beside
from cvae.training.gpus import take_gpu
from cvae.training.launch import is_first_process, is_one_of_several, launch
from cvae.training.slurm import folder_by_time

log = logging.getLogger(__name__)
_PACKAGED = Path(__file__).parent / "conf"  # in an installed wheel
CONF = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "conf"
RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
HOW = ("name", "checkpoint", "logger", "compile")  # what a run is does not hang on these


def train(config: DictConfig, folder: Path) -> None:
    """Train a composed config in a folder.

    Raises:
        UserError: the config or the data cannot be used.
    """
    run = Run(folder, folder_config(config))
    restarted = _restarted() and run.checkpoint("last").is_file()
    if restarted:
        run = _as_it_began(run)
    if not is_first_process():
        logging.getLogger().setLevel(logging.ERROR)
        launch(run)
        return
    with run.hold():
        log_to(folder)
        if not restarted:
            _begin(run)
        launch(run)


def _begin(run: Run) -> None:
    """Begin a run, and keep the words of its command.

    Raises:
        UserError: as of `Run.begin`.
    """
    run.begin()
    words = HydraConfig.get().overrides.task
    run.write_words(words)
    for key, count in Counter(map(key_of, words)).items():
        if count > 1:
            log.warning("%s= is given %d times, and the last counts", key, count)


def _restarted() -> bool:
    """Whether a cluster has put this very command back to work after it was interrupted."""
    return any(int(os.environ.get(name, "0")) > 0 for name in RESTARTS)


def _as_it_began(run: Run) -> Run:
    """The run that a folder holds already, whatever conf/ has come to say since of how it trains.

    Raises:
        UserError: it is another one than the command describes.
    """
    kept = Run(run.folder)
    free = HOW if kept.metrics.is_file() else (*HOW, "trainer")
    other = [key for key in kept.config if key not in free and kept.config[key] != run.config[key]]
    if other:
        raise UserError(
            f"{run.folder} holds a run with another {', '.join(other)}: choose another "
            f"hydra.run.dir, or go on with {resume_command(run.folder)}"
        )
    return kept


def train_job(config: DictConfig, folder: Path) -> float | None:
    """Train a composed config as a job of a sweep, in a process of its own.

    Returns:
        The best validation metric that the objective looks at, in nats, for the sweeper; None
        without validation, and of a job that failed.
    """
    run, hydra_config = Run(folder), HydraConfig.get()
    wanted = partial(is_wanted, Path(hydra_config.sweep.dir))
    beside = (wanted,) if run_beside(hydra_config.launcher) else ()
    parent = os.getppid()
    if not apart(partial(_begin_or_go_on, config, run), run, *beside):
        if os.getppid() != parent:  # its sweep was killed: joblib would wait for more to do
            os._exit(1)
        return None
    best: float | None = json.loads(run.metrics.read_text())["best"]
    return best


def _begin_or_go_on(config: DictConfig, run: Run) -> None:
    """A job that was cut off goes on, and one that has ended has nothing to do."""
    launcher = HydraConfig.get().launcher
    take_gpu(HydraConfig.get().job.num, launcher)
    new = Run(run.folder, folder_config(config))
    if not (run.begun and run.config == new.config):
        _begin(new)
    if not run.metrics.is_file():  # bars of several jobs would write over each other
        launch(new.changed(["trainer.enable_progress_bar=false"]) if run_beside(launcher) else new)


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def main(config: DictConfig) -> float | None:
    """Hydra's entry, for a run and for each job of a sweep."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    if hydra_config.mode is RunMode.MULTIRUN:
        if is_one_of_several():
            raise UserError("a sweep starts its processes itself: leave out torchrun or srun")
        return train_job(config, folder)
    try:
        if not hydra_config.run.dir:
            raise UserError("hydra.run.dir=: the name of a folder is missing")
        _check_shared()
        train(config, folder)
    except MISTAKES as error:
        log_mistake(error)
    except Exception:
        log.exception("a fault of the program")
    else:
        return None
    sys.exit(1)


def _check_shared() -> None:
    """Refuse a folder that each of several processes would name by its own time.

    Raises:
        UserError: saying what to give instead.
    """
    if os.environ.get("WORLD_SIZE") == "1":
        return
    if is_one_of_several() and (folder := folder_by_time()):
        raise UserError(
            f"hydra.run.dir={folder} is another folder in each process that torchrun or srun "
            "started: give hydra.run.dir=FOLDER, or trainer=multi_node, which names it by the job"
        )


def _check_flags() -> None:
    """Refuse the flag with which Hydra would unpickle a file, and so run whatever is in it.

    Raises:
        UserError: it is there, in one of the forms that Hydra's own parser takes.
    """
    if get_args_parser().parse_args().experimental_rerun is not None:
        raise UserError(
            "--experimental-rerun would run code out of the file: give the run's words again, or "
            "python -m cvae.resume FOLDER (an experiment is experiment=NAME, without dashes)"
        )


def compose_and_train() -> None:
    """Hydra's main; what it raises by itself is about the words of the command line."""
    _check_flags()
    try:
        main()
    except Interrupted as interruption:
        raise stopped(Jobs.sweep, interruption) if Jobs.sweep else interruption from None
    except Exception as error:
        if Jobs.sweep:  # a launcher that lost its jobs, a sweeper that got no number
            log_mistake(error)
        elif isinstance(error, ValueError):
            words = " ".join(sys.argv[1:])
            raise UserError(f"{words}: one of these is not GROUP=CHOICE ({error})") from error
        else:
            raise
    if Jobs.sweep:
        end_sweep(Jobs.sweep)


if __name__ == "__main__":
    run_command(compose_and_train)
