"""`python -m cvae.train`: compose a config with Hydra, train it, test it, leave a run's folder."""

import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cvae.allowed import allow
from cvae.command import MISTAKES, log_mistake, log_to, run_command
from cvae.config import plain
from cvae.errors import UserError
from cvae.run import Run
from cvae.training.launch import is_first_process, launch

log = logging.getLogger(__name__)
_PACKAGED = Path(__file__).parent / "conf"  # in an installed wheel
CONF = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "conf"
RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
failures: list[str] = []


def train(config: DictConfig, folder: Path) -> float | None:
    """Train a composed config in a folder.

    Returns:
        The best validation metric that the objective looks at, in nats; None without validation.

    Raises:
        UserError: the config or the data cannot be used.
    """
    values = plain(config)
    package = values.pop("allow")  # not for the folder: whoever uses it decides for themselves
    if package is not None:
        allow(package)
    run = Run(folder, values)
    restarted = _restarted() and run.checkpoint("last").is_file()
    if restarted:
        run = Run(folder)  # as it began, whatever conf/ has come to say since
    if not is_first_process():
        logging.getLogger().setLevel(logging.ERROR)
        best: float | None = launch(run)["best"]
        return best
    with run.hold():
        log_to(folder)
        if not restarted:
            run.begin()
        best = launch(run)["best"]
    return best


def _restarted() -> bool:
    """Whether a cluster has put this very command back to work after it was interrupted."""
    return any(int(os.environ.get(name, "0")) > 0 for name in RESTARTS)


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def main(config: DictConfig) -> float | None:
    """Hydra's entry; a job that fails is noted, and in a sweep does not stop the others."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    try:
        if not (hydra_config.run.dir or hydra_config.mode is RunMode.MULTIRUN):
            raise UserError("hydra.run.dir=: the name of a folder is missing")
        return train(config, folder)
    except MISTAKES as error:
        log_mistake(error)
    except Exception:
        log.exception("a fault of the program")
    if hydra_config.mode is RunMode.RUN:
        sys.exit(1)
    failures.append(str(folder))
    return None


def compose_and_train() -> None:
    """Hydra's main; what it raises by itself is about the words of the command line."""
    try:
        main()
    except ValueError as error:
        words = " ".join(sys.argv[1:])
        raise UserError(f"{words}: one of these is not GROUP=CHOICE ({error})") from error


if __name__ == "__main__":
    run_command(compose_and_train)
    if failures:
        jobs = "job" if len(failures) == 1 else "jobs"
        sys.exit(f"{len(failures)} {jobs} of the sweep failed: {', '.join(failures)}")
