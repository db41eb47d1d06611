"""Which GPU a job of a sweep is given, and how many threads; the GPUs are only numbers here."""

import os

import pytest
import torch

from cvae.training.beside import THREADS, share_threads
from cvae.training.gpus import share_gpus, take_gpu

JOBLIB = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"}
LOCAL = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"}
SLURM = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"}
BASIC = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What takes the place of the process's."""
    fresh = dict[str, str]()
    monkeypatch.setattr(os, "environ", fresh)
    return fresh


@pytest.mark.parametrize(
    ("launcher", "gpus", "expected"),
    [
        (JOBLIB | {"n_jobs": -1}, 4, ["0", "1", "2", "3", "0"]),
        (JOBLIB | {"n_jobs": 2}, 3, ["0", "1", "2", "0", "1"]),
        (LOCAL, 2, ["0", "1", "0", "1", "0"]),
        (LOCAL, 1, ["0"] * 5),
        (JOBLIB | {"n_jobs": 1}, 4, [None] * 5),
        (JOBLIB | {"n_jobs": 2}, 0, [None] * 5),
        (SLURM, 4, [None] * 5),
        (BASIC, 4, [None] * 5),
    ],
)
def test_only_jobs_that_run_side_by_side_share_the_gpus(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    launcher: dict[str, object],
    gpus: int,
    expected: list[str | None],
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    share_gpus()
    taken = []
    for job in range(5):
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        take_gpu(job, launcher)
        taken.append(environment.get("CUDA_VISIBLE_DEVICES"))
    assert taken == expected


def test_jobs_share_those_gpus_that_their_sweep_sees(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    """Though submitit says that there are none."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    environment["CUDA_VISIBLE_DEVICES"] = "5,GPU-a"
    share_gpus()
    environment["CUDA_VISIBLE_DEVICES"] = ""
    take_gpu(3, LOCAL)
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-a"


@pytest.mark.parametrize(
    ("launcher", "jobs", "expected"),
    [
        (JOBLIB | {"n_jobs": -1}, 3, "5"),
        (JOBLIB | {"n_jobs": -1}, 20, "1"),
        (JOBLIB | {"n_jobs": 4}, 20, "4"),
        (JOBLIB | {"n_jobs": 4}, 2, "8"),
        (LOCAL, 2, "8"),
    ],
)
def test_jobs_side_by_side_share_the_threads(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    launcher: dict[str, object],
    jobs: int,
    expected: str,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    share_threads(launcher, jobs)
    assert [environment[name] for name in THREADS] == [expected, expected]


def test_a_number_of_threads_that_is_given_is_for_each_job(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    environment["OMP_NUM_THREADS"] = "3"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)  # as it is then
    share_threads(LOCAL, 2)
    assert [environment[name] for name in THREADS] == ["3", "3"]
