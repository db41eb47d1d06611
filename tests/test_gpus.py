"""Which GPU a job of a sweep is given; the GPUs are only numbers here."""

import os

import pytest
import torch

from cvae.training.gpus import nth_gpu, take_gpu

JOBLIB = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"}
LOCAL = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"}
SLURM = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"}
BASIC = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}


def test_jobs_take_the_gpus_in_turn() -> None:
    assert [nth_gpu(job, 3, None) for job in range(5)] == ["0", "1", "2", "0", "1"]
    assert [nth_gpu(job, 2, "5,GPU-a") for job in range(3)] == ["5", "GPU-a", "5"]


@pytest.mark.parametrize(
    ("launcher", "gpus", "expected"),
    [
        (JOBLIB | {"n_jobs": -1}, 4, "1"),
        (JOBLIB | {"n_jobs": 2}, 4, "1"),
        (LOCAL, 4, "1"),
        (JOBLIB | {"n_jobs": 1}, 4, None),
        (JOBLIB | {"n_jobs": 2}, 1, None),
        (JOBLIB | {"n_jobs": 2}, 0, None),
        (SLURM, 4, None),
        (BASIC, 4, None),
    ],
)
def test_only_jobs_that_run_side_by_side_share_the_gpus(
    monkeypatch: pytest.MonkeyPatch,
    launcher: dict[str, object],
    gpus: int,
    expected: str | None,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(os, "environ", {})
    take_gpu(5, launcher)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == expected
