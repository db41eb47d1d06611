"""A GPU each for jobs that run at the same time."""

import os
from collections.abc import Mapping
from typing import Any

import torch

AT_ONCE = ("JoblibLauncher", "LocalLauncher")  # on this machine; SLURM gives out its own GPUs


def take_gpu(number: int, launcher: Mapping[str, Any]) -> None:
    """Leave this process one of several GPUs, if other jobs of its sweep may run beside it.

    Args:
        number: of the job: the GPUs are taken in turn.
        launcher: Hydra's config of it.
    """
    name = str(launcher["_target_"]).rpartition(".")[2]
    count = torch.cuda.device_count()
    if name in AT_ONCE and launcher.get("n_jobs") != 1 and count > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = nth_gpu(
            number, count, os.environ.get("CUDA_VISIBLE_DEVICES")
        )


def nth_gpu(number: int, count: int, visible: str | None) -> str:
    """The GPU of a job, as CUDA_VISIBLE_DEVICES names it.

    Args:
        number: of the job.
        count: of the GPUs that can be used.
        visible: what CUDA_VISIBLE_DEVICES says already, if anything.
    """
    names = visible.split(",") if visible else [str(index) for index in range(count)]
    return names[number % count]
