"""Jobs of a sweep that run at the same time on this machine: their threads, and their end."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from cvae.errors import UserError
from cvae.interruption import interrupt
from cvae.jobs import jobs
from cvae.training.signals import handle_signals

AT_ONCE = ("JoblibLauncher", "LocalLauncher")  # Hydra's; jobs under SLURM outlive their sweep
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # of both torch goes by the latter


def run_beside(launcher: Mapping[str, Any]) -> bool:
    """Whether a launcher, of which this is Hydra's config, starts several jobs on this machine."""
    name = str(launcher["_target_"]).rpartition(".")[2]
    return name in AT_ONCE and launcher.get("n_jobs") != 1


def share_threads(launcher: Mapping[str, Any], count: int) -> None:
    """Divide this process's threads among the jobs that a launcher will start at the same time.

    Where the environment says how many a process has, that is for each of them.

    Args:
        launcher: Hydra's config of it.
        count: of the jobs.

    Raises:
        UserError: there are to be no jobs at once.
    """
    threads, most = torch.get_num_threads(), launcher.get("n_jobs", -1)
    if most == 0:
        raise UserError("hydra.launcher.n_jobs=0: 1 or more, or -1 for one on each core")
    if not any(name in os.environ for name in THREADS):
        threads = max(1, threads // (count if most < 0 else min(count, most)))
    os.environ.update(dict.fromkeys(THREADS, str(threads)))  # joblib would add what is missing


def _presence(sweep: Path) -> FileLock:
    """What a sweep's process holds for as long as it lives, however it ends."""
    return FileLock(sweep / ".lock")


def is_wanted(sweep: Path) -> bool:
    """Whether the process of a sweep is there to wait for its jobs."""
    try:
        with _presence(sweep).acquire(timeout=0):
            return False
    except OSError:  # a Timeout: somebody holds it
        return True


def stop_jobs_first(sweep: Path) -> None:
    """Let a signal stop this process only when the jobs beside it have written their checkpoints.

    They see that nobody holds the sweep's lock. A launcher that is told first would kill them, or
    leave them behind.
    """
    lock = _presence(sweep)
    with suppress(Timeout):  # of the same sweep started twice: its jobs will say so
        lock.acquire(timeout=5)

    def stop(signum: int, frame: object) -> None:
        handle_signals(interrupt)  # a second one ends this process at once
        lock.release()
        for run in jobs(sweep):
            run.wait()
        interrupt(signum, frame)

    handle_signals(stop)
