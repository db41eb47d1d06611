"""How a sweep begins and ends, whichever sweeper and launcher Hydra is told to use."""

import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from cvae.allowed import allow
from cvae.command import MISTAKES, in_one_line, log_mistake
from cvae.compare import compare
from cvae.config import check_config, plain
from cvae.errors import Interrupted, UserError
from cvae.jobs import announce, failures, jobs
from cvae.run import Run
from cvae.run_folder import resume_command
from cvae.training.apart import note
from cvae.training.beside import run_beside, share_threads, stop_jobs_first
from cvae.training.gpus import share_gpus
from cvae.training.slurm import requeue

log = logging.getLogger(__name__)


def folder_config(config: DictConfig) -> dict[str, Any]:
    """What a run's folder holds of a composed config; the package that it allows is admitted.

    Raises:
        UserError: there is no such package.
        OmegaConfBaseException: a value cannot be resolved.
    """
    values = plain(config)
    package = values.pop("allow")  # not for the folder: whoever uses it decides for themselves
    if package is not None:
        allow(package)
    return values


class Jobs(Callback):
    """Hydra's callback that leaves each job's config in its folder before any job begins.

    So a sweep that is killed can be resumed from its folder alone. A sweeper that makes its jobs
    up on the way has none to leave yet. One that searches looks for the largest number, as a job's
    is a bound.
    """

    sweep: Path | None = None  # the folder of the one that began in this process

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        try:
            # first: from here on its ${now:} is this moment for every job that is composed
            folder = Path(config.hydra.sweep.dir)
            composed = _compose(config)
        except MISTAKES:
            return  # Hydra itself comes upon it next, and begins no job
        if (
            "direction" in config.hydra.sweeper
        ):  # of Optuna's search, whose own choice is to minimise
            config.hydra.sweeper.direction = "maximize"
        try:
            _begin(folder, config, composed)
        except MISTAKES as error:
            log_mistake(error)
            sys.exit(1)  # Hydra makes a warning of what a callback raises, and goes on
        Jobs.sweep = folder


def _begin(folder: Path, config: DictConfig, composed: Sequence[DictConfig]) -> None:
    """Leave the sweep's words and its jobs' configs, and share out what the jobs have.

    Raises:
        UserError: the folder holds another sweep or something else, a job of it trains, two jobs
            have one folder, or it cannot be written.
    """
    words, refused = dict[Run, Sequence[str]](), dict[Run, str]()
    for number, job in enumerate(composed):
        given = job.hydra.overrides.task
        with suppress(*MISTAKES):  # of a folder that only the job itself can name
            run = Run(_folder(job, number))
            try:
                words[Run(run.folder, _values(job))] = given
            except MISTAKES as error:
                refused[run] = in_one_line(error)
    runs = list(words)
    if len({run.folder for run in runs}) < len(runs):
        raise UserError(
            "hydra.sweep.subdir is the same for several jobs: put ${hydra:job.num} into it"
        )
    for run in runs:
        if run.begun and Run(run.folder).config != run.config:
            raise UserError(
                f"hydra.sweep.dir={folder} holds another sweep, whose job {run.folder.name} has "
                f"other values: choose another, or go on with {resume_command(folder)}"
            )
    with ExitStack() as held:  # a job of the sweep as it was may train, without a checkpoint yet
        waiting = [run for run in (*runs, *refused) if not run.begun]
        for run in waiting:
            held.enter_context(run.hold())
            run.check_place()
        for run in waiting:
            if run in refused:
                note(run, refused[run])  # as the job will, if the sweep lives that long
            else:
                run.write_config()
                run.write_words(words[run])
        announce(folder)  # last: a sweep that is killed before would be resumed as a shorter one
    if run_beside(config.hydra.launcher):
        count = len(composed) or config.hydra.sweeper.get("n_jobs", 1)
        share_threads(config.hydra.launcher, count)
        share_gpus()
        stop_jobs_first(folder)


def _compose(config: DictConfig) -> list[DictConfig]:
    """The configs of the jobs that Hydra's own sweeper makes of a sweep's; of others none."""
    if not config.hydra.sweeper._target_.endswith(f".{BasicSweeper.__name__}"):
        return []
    loader = GlobalHydra.instance().config_loader()
    given = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=loader)
    # not resolved: ${model.latent_dim} is each job's own
    words: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    overrides = parser.parse_overrides([*given, *words])
    (jobs_words,) = BasicSweeper.split_arguments(overrides, None)
    return [loader.load_sweep_config(config, words) for words in jobs_words]


def _folder(config: DictConfig, number: int) -> Path:
    """Where a job's composed config has its run.

    Raises:
        OmegaConfBaseException: a part of the name cannot be resolved.
    """
    with open_dict(config):
        config.hydra.job.num = number
    HydraConfig.instance().set_config(config)  # which the config's own values refer to
    return Path(config.hydra.sweep.dir, config.hydra.sweep.subdir)


def _values(config: DictConfig) -> dict[str, Any]:
    """What a job's folder is to hold of its composed config.

    Raises:
        UserError: the config names a target that is not on the list.
        OmegaConfBaseException: a value cannot be resolved.
    """
    with open_dict(config):
        del config["hydra"]
    values = folder_config(config)
    check_config(values)
    return values


def end_sweep(folder: Path) -> None:
    """Write and print a sweep's summary; end with status 1 and a line if a job has not finished.

    Raises:
        UserError: there is nothing to summarise, or the folder cannot be written.
    """
    failed = failures([folder])
    unfinished = [run.folder for run in jobs(folder) if not run.metrics.is_file()]
    missing = [*failed, *(other for other in unfinished if other not in failed)]
    if not (missing or jobs(folder)):
        sys.exit(1)  # its words were refused, and that has been told
    print(compare([str(folder)], [], folder))
    if missing:
        names = ", ".join(str(other) for other in missing)
        hint = f"{resume_command(folder)} goes on"
        if failed:
            hint += f", and so does its command with better values and hydra.sweep.dir={folder}"
        log.error(
            "%s of the sweep failed or did not finish: %s; %s",
            "1 job" if len(missing) == 1 else f"{len(missing)} jobs",
            names,
            hint if unfinished else "mend the command's words and start it again",
        )
        sys.exit(1)


def stopped(folder: Path, interruption: Interrupted, changes: Sequence[str] = ()) -> Interrupted:
    """What to raise in place of a job's interruption: it says how to go on with its sweep."""
    if interruption.signum == signal.SIGUSR1:
        requeue()
    return Interrupted(interruption.signum, f"{resume_command(folder, changes)} goes on")
