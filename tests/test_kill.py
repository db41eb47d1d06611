"""A kill that nothing can be done about, at any instant, costs a run no more than some time."""

import csv
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cvae.checkpoint import read_checkpoint
from folders import differences, points, step
from warm import Command, signal_at

Begin = Callable[..., Command]
Reference = Callable[..., Path]
BUSY = (  # it writes a checkpoint at each step
    "checkpoint.every_minutes=0.00001",
    "trainer.limit_train_batches=100",
)


def kill(command: Command, seconds: float) -> bool:
    """Kill a command after a while; whether it still ran."""
    time.sleep(seconds)
    if not command.ended():
        command.send(signal.SIGKILL)
    assert command.wait().status in (0, -signal.SIGKILL), command.output
    return command.status == -signal.SIGKILL


def assert_readable(folder: Path) -> None:
    for path in folder.glob("checkpoints/*.ckpt"):
        read_checkpoint(path)
    if (folder / "metrics.csv").exists():
        with (folder / "metrics.csv").open() as file:
            for row in csv.DictReader(file):
                assert float(row["train/loss"]) == -float(row["train/elbo"])


def go_on(begin: Begin, resume: Begin, folder: Path) -> Command:
    """Resume a run, or start it again where the kill came before its first checkpoint."""
    last = folder / "checkpoints" / "last.ckpt"
    if last.exists():
        return resume(folder, wait=False)
    if (folder / "config.yaml").exists():
        refused = resume(folder)
        assert refused.status == 1
        assert f"{last} does not exist: nothing to go on from" in refused.error
    return begin(folder, *BUSY)


def started(folder: Path) -> Callable[[], bool]:
    return lambda: any(folder.glob("tensorboard/events*"))


@pytest.mark.parametrize(
    "kills", [pytest.param(3), pytest.param(20, marks=pytest.mark.slow)], ids=str
)
def test_killed_at_random_a_run_ends_like_one_never_killed(
    begin: Begin, resume: Begin, reference: Reference, tmp_path: Path, kills: int
) -> None:
    """Each kill comes anywhere from a process's start of training to the end of its test."""
    whole = reference(*BUSY)
    moments = random.Random(kills)
    folder = tmp_path / "0"
    command, killed, ended = begin(folder, *BUSY), 0, 0
    while killed < kills:
        command.until(started(folder))
        killed += kill(command, moments.uniform(0, 2.5))
        assert_readable(folder)
        if (folder / "metrics.json").exists():
            assert differences(whole, folder) == []
            ended += 1
            folder = tmp_path / str(ended)
            command = begin(folder, *BUSY)
        else:
            command = go_on(begin, resume, folder)
    assert command.wait().status == 0, command.output
    assert differences(whole, folder) == []
    assert list(folder.glob("checkpoints/.*")) == []


def test_killed_while_it_writes_a_checkpoint_a_run_loses_nothing(
    begin: Begin, resume: Begin, reference: Reference, tmp_path: Path
) -> None:
    command = begin(tmp_path, *BUSY)
    checkpoints = tmp_path / "checkpoints"
    command.until((checkpoints / "last.ckpt").exists)
    command.until(lambda: any(checkpoints.glob(".last.ckpt.*.tmp")) and stop(command))
    while not any(checkpoints.glob(".last.ckpt.*.tmp")):  # it was done before it stopped
        command.send(signal.SIGCONT)
        command.until(lambda: any(checkpoints.glob(".last.ckpt.*.tmp")) and stop(command))
    kill(command, 0)
    assert any(checkpoints.glob(".last.ckpt.*.tmp"))
    assert_readable(tmp_path)
    assert resume(tmp_path).status == 0
    assert list(checkpoints.glob(".*")) == []
    whole = reference(*BUSY)
    assert differences(whole, tmp_path) == []
    assert points(tmp_path) == points(whole)


def stop(command: Command) -> bool:
    command.send(signal.SIGSTOP)
    time.sleep(0.05)
    return True


@pytest.mark.parametrize(
    ("place", "at_step"),
    [("Recorder.on_train_batch_end", 175), ("Recorder.on_train_epoch_end", 200)],
)
def test_killed_after_a_checkpoint_a_run_shows_each_point_once(
    begin: Begin, resume: Begin, reference: Reference, tmp_path: Path, place: str, at_step: int
) -> None:
    """TensorBoard has what was before last.ckpt, and a validation after it that is done again."""
    before = signal_at(place, signal.SIGKILL, at_step)
    assert begin(tmp_path, *BUSY, before=before).wait().status == -signal.SIGKILL
    assert step(tmp_path) == at_step - 1
    assert resume(tmp_path).status == 0
    whole = reference(*BUSY)
    assert differences(whole, tmp_path) == []
    assert points(tmp_path) == points(whole)


def test_killed_before_its_first_checkpoint_a_run_begins_again(
    begin: Begin, resume: Begin, reference: Reference, tmp_path: Path
) -> None:
    command = begin(tmp_path)
    command.until(started(tmp_path))
    kill(command, 0)
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()
    refused = resume(tmp_path)
    assert refused.status == 1
    assert len(refused.output.splitlines()) == 1
    assert "last.ckpt does not exist: nothing to go on from, start the run again" in refused.output
    assert begin(tmp_path).wait().status == 0
    assert differences(reference(), tmp_path) == []
