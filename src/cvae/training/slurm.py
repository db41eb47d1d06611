"""SLURM's queue: a job that made way for another is put back into it."""

import logging
import os
import subprocess

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

log = logging.getLogger(__name__)


def folder_by_time() -> str | None:
    """What Hydra's config names this command's folder by, if the next start will name another."""
    if not HydraConfig.initialized():
        return None  # a command over a folder
    config = HydraConfig.get()
    node = config.sweep if config.mode is RunMode.MULTIRUN else config.run
    name = str(OmegaConf.to_container(node, resolve=False)["dir"])  # type: ignore[index, call-overload]
    return name if "${now" in name else None


def requeue() -> None:
    """Put SLURM's job back into its queue, to run the same command again when there is room.

    Not where that would begin from nothing, in a folder named by another time.
    """
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if name := folder_by_time():
        log.warning(
            "job %s is not put back into SLURM's queue, as it would begin anew: its folder is "
            "named by the time (%s); a folder of a fixed name goes on by itself",
            job,
            name,
        )
        return
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        log.warning("SLURM was not asked to put job %s back: %s", job, error)
