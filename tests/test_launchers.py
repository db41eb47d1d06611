"""Jobs of a sweep that other launchers run side by side: their threads, failures and ends."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import SHORT, TINY, last_of_each
from cvae.run import Run
from folders import differences, finished, load, results
from warm import PATIENCE, Command, processes_with

Sweep = Callable[..., Command]
Resume = Callable[..., Command]
pytestmark = pytest.mark.slow
LAUNCHERS = pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
LONG = ("trainer.limit_train_batches=700", "checkpoint.every_minutes=null")


@LAUNCHERS
def test_jobs_in_processes_of_other_launchers_fail_alone(
    train: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    launcher: str,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    words = (*TINY, *SHORT, "model.latent_dim=2,0,3", f"hydra/launcher={launcher}")
    words += ("trainer.enable_progress_bar=true",)
    result = train("-m", *last_of_each(words), f"hydra.sweep.dir={tmp_path}")
    assert result.returncode == 1
    assert f"1 job of the sweep failed or did not finish: {tmp_path}/1;" in result.stderr
    assert "Traceback" not in result.stderr
    assert finished(tmp_path) == {"0", "2"}
    assert "%|" not in result.stderr  # bars of several jobs would write over each other
    for name in ("0", "2"):
        assert f"{name}: epoch 1, val/elbo" in (tmp_path / name / "train.log").read_text()
    why = "model.latent_dim=0: Input should be greater than 0"
    assert f"failed: {tmp_path}/1: {why}" in result.stdout
    assert results(tmp_path / "0")["threads"] <= max(1, len(os.sched_getaffinity(0)) // 3)


def test_jobs_of_two_processes_side_by_side_draw_no_bars(sweep: Sweep, tmp_path: Path) -> None:
    words = ("seed=0,1", "trainer=ddp_cpu", "trainer.enable_progress_bar=true")
    command = sweep(tmp_path, *SHORT, *words, "hydra/launcher=joblib").wait()
    assert command.status == 0, command.output
    assert "%|" not in command.output
    assert Run(tmp_path / "0").config["trainer"]["enable_progress_bar"] is True


@pytest.mark.parametrize(
    ("launcher", "signum"),
    [
        ("joblib", signal.SIGINT),
        ("joblib", signal.SIGTERM),
        ("joblib", signal.SIGKILL),
        ("submitit_local", signal.SIGTERM),
    ],
)
def test_jobs_side_by_side_end_with_their_sweep_and_write_checkpoints(
    sweep: Sweep, resume: Resume, tmp_path: Path, launcher: str, signum: signal.Signals
) -> None:
    two = ("model.latent_dim=2,3", f"hydra/launcher={launcher}")
    command = sweep(tmp_path, *LONG, *two, "trainer.max_epochs=1000")
    last = [tmp_path / job / "checkpoints" / "last.ckpt" for job in "01"]
    command.until(lambda: all(path.exists() for path in last))
    started = descendants(command.pid)
    assert len(started) >= 4
    told = time.time()
    command.send(signum)
    command.wait()
    until(lambda: not any(lives(pid) for pid in started))
    assert all(path.stat().st_mtime > told for path in last)
    if signum != signal.SIGKILL:
        assert command.status == 128 + signum
        stopped = f"interrupted by {signum.name}: python -m cvae.resume {tmp_path} goes on"
        assert stopped in command.output.strip().splitlines()[-1]

    epochs = max(load(path)["global_step"] for path in last) // 700 + 1
    command = resume(tmp_path, f"trainer.max_epochs={epochs}")
    assert command.status == 0, command.output
    assert finished(tmp_path) == {"0", "1"}


def test_a_job_whose_machine_submitit_takes_away_goes_on_in_its_folder(
    sweep: Sweep, reference: Callable[..., Path], tmp_path: Path
) -> None:
    """The checkpoint is written before submitit asks for the job to be started again."""
    words = (*LONG, "trainer.max_epochs=2", "model.latent_dim=2")
    command = sweep(tmp_path, *words, "hydra/launcher=submitit_local")
    last = tmp_path / "0" / "checkpoints" / "last.ckpt"
    command.until(last.exists)
    task, *_ = processes_with(f"submitit.core._submit {tmp_path}")
    os.kill(task, signal.SIGUSR2)
    assert command.wait().status == 0, command.output
    (path,) = tmp_path.glob(".submitit/*/*_log.err")
    log = path.read_text()
    places = [log.index(text) for text in ("interrupted by SIGTERM", "Caught signal", "going on")]
    assert places == sorted(places)
    assert differences(reference(*words), tmp_path / "0") == []


def descendants(pid: int) -> list[int]:
    listing = ["ps", "--ppid", str(pid), "-o", "pid="]
    text = subprocess.run(listing, capture_output=True, text=True, check=False).stdout
    children = [int(word) for word in text.split()]
    return [*children, *(other for child in children for other in descendants(child))]


def lives(pid: int) -> bool:
    listing = ["ps", "-p", str(pid), "-o", "stat="]
    state = subprocess.run(listing, capture_output=True, text=True, check=False).stdout
    return state.strip() not in ("", "Z")


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
