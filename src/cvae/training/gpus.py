"""A GPU each for jobs that run at the same time."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from cvae.training.beside import run_beside

GPUS = "CVAE_GPUS"  # of a sweep, by the names that CUDA_VISIBLE_DEVICES gives them


def share_gpus() -> None:
    """Tell the jobs that this process will start of its GPUs: submitit hides them from its own."""
    if count := torch.cuda.device_count():
        numbers = ",".join(map(str, range(count)))
        os.environ[GPUS] = os.environ.get("CUDA_VISIBLE_DEVICES") or numbers


def take_gpu(number: int, launcher: Mapping[str, Any]) -> None:
    """Leave this process one of its sweep's GPUs, if other jobs may run beside it.

    Args:
        number: of the job: the GPUs are taken in turn.
        launcher: Hydra's config of it.
    """
    if run_beside(launcher) and (names := os.environ.get(GPUS)):
        gpus = names.split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
