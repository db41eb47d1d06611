"""A run that is interrupted and resumed is the run that never was, to the last bit."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvae.errors import UserError
from cvae.run import Run
from cvae.run_folder import resume_command
from cvae.training.slurm import requeue
from folders import differences, load, points, results, step
from warm import Command, signal_at

Begin = Callable[..., Command]
Reference = Callable[..., Path]
STEPS_PER_EPOCH = 20
LONG = (
    "trainer.limit_train_batches=700",
    "trainer.max_epochs=2",
    "checkpoint.every_minutes=0.001",
)
NEVER_BETTER = (
    "callbacks=early_stopping",
    "callbacks.early_stopping.patience=1",
    "callbacks.early_stopping.min_delta=1000",
)


STEP_END, VALIDATION_END, TRAIN_END, TEST_STEP = (
    "Recorder.on_train_batch_end",
    "Recorder.on_validation_end",
    "Recorder.on_train_end",
    "Training.test_step",
)


def test_a_run_stopped_at_any_time_and_resumed_ends_like_one_never_stopped(
    begin: Begin, resume: Begin, reference: Reference, tmp_path: Path
) -> None:
    """The signals come from outside, each a while into an epoch."""
    whole = reference(*LONG)
    last = tmp_path / "checkpoints" / "last.ckpt"
    command = begin(tmp_path, *LONG)
    command.until(last.exists)
    command.send(signal.SIGTERM)
    assert command.wait().status == 128 + signal.SIGTERM
    assert f"interrupted by SIGTERM: python -m cvae.resume {tmp_path} goes on" in command.error
    before = step(tmp_path)
    assert before % 700, "the signal was to be in the middle of an epoch"

    command = resume_until(resume, tmp_path, before)
    command.send(signal.SIGINT)
    assert command.wait().status == 128 + signal.SIGINT
    assert f"interrupted by SIGINT: python -m cvae.resume {tmp_path} goes on" in command.error
    assert step(tmp_path) % 700

    assert resume(tmp_path).status == 0
    assert differences(whole, tmp_path) == []
    assert points(tmp_path) == points(whole)
    assert len(points(whole)["train/elbo"]) == 28
    assert len(points(whole)["val/elbo"]) == 2


def resume_until(resume: Begin, folder: Path, after: int) -> Command:
    """A resumption that has come further than a step."""
    command = resume(folder, wait=False)
    last = folder / "checkpoints" / "last.ckpt"
    command.until(lambda: step(folder) > after if last.exists() else False)
    return command


@pytest.mark.parametrize(
    ("overrides", "place", "at_step"),
    [
        pytest.param([], VALIDATION_END, 40, id="validation"),
        pytest.param(["trainer.val_check_interval=8"], STEP_END, 28, id="validation is due"),
        pytest.param(
            ["trainer.limit_train_batches=21", "trainer.val_check_interval=2"],
            STEP_END,
            25,
            id="validation every other step of an odd epoch",
        ),
        pytest.param(["trainer.check_val_every_n_epoch=2"], STEP_END, 50, id="few validations"),
        pytest.param(["data.split=full"], STEP_END, 30, id="no validation"),
        pytest.param(["trainer.max_steps=50"], STEP_END, 40, id="an epoch's end, max_steps"),
        pytest.param(
            ["schedule=cosine", "callbacks=start_at_mean"],
            STEP_END,
            30,
            id="a rate that falls, and a decoder that began at the mean",
        ),
        pytest.param(
            [
                "objective=iwae",
                "objective.num_samples=3",
                "objective.num_backward=1",
                "objective.warmup_epochs=1.5",
            ],
            STEP_END,
            25,
            id="a warm-up with less noise than what comes after",
        ),
        pytest.param(
            [*NEVER_BETTER, "callbacks.early_stopping.patience=2", "trainer.max_epochs=5"],
            STEP_END,
            50,
            id="early stopping that has waited for an epoch",
        ),
    ],
)
def test_wherever_a_run_was_stopped_it_goes_on_exactly(
    begin: Begin,
    resume: Begin,
    reference: Reference,
    tmp_path: Path,
    overrides: list[str],
    place: str,
    at_step: int,
) -> None:
    command = begin(tmp_path, *overrides, before=signal_at(place, signal.SIGTERM, at_step)).wait()
    assert command.status == 128 + signal.SIGTERM, command.output
    assert at_step <= step(tmp_path) <= at_step + 1, "at once, or after the validation that is due"
    assert resume(tmp_path).status == 0
    whole = reference(*overrides)
    assert differences(whole, tmp_path) == []
    assert points(tmp_path) == points(whole)


@pytest.mark.slow
def test_a_run_of_several_annotators_goes_on_exactly(
    begin: Begin,
    resume: Begin,
    reference: Reference,
    tmp_path: Path,
    of_squares: tuple[str, ...],
) -> None:
    command = begin(tmp_path, *of_squares, before=signal_at(STEP_END, signal.SIGTERM, 15)).wait()
    assert command.status == 128 + signal.SIGTERM, command.output
    assert step(tmp_path) == 15, "in the middle of the second epoch"
    assert resume(tmp_path).status == 0
    whole = reference(*of_squares)
    assert differences(whole, tmp_path) == []
    assert points(tmp_path) == points(whole)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("trainer.max_epochs=2", "trainer.max_epochs=3"),
        ("trainer.max_steps=40", "trainer.max_steps=50"),
        ("trainer.max_steps=30", "trainer.max_steps=50"),
    ],
)
def test_a_run_trained_for_longer_is_the_longer_run(
    begin: Begin, resume: Begin, reference: Reference, tmp_path: Path, short: str, long: str
) -> None:
    """At an epoch's end and within, where the last row of the table was of a part of an epoch."""
    assert begin(tmp_path, short).wait().status == 0
    log = (tmp_path / "train.log").read_text()
    command = resume(tmp_path, long)
    assert command.status == 0, command.output
    before, after = (tmp_path / "train.log").read_text().split(log)
    assert before == ""
    assert "going on from step" in after
    whole = reference(*([] if long == "trainer.max_epochs=3" else [long]))
    assert differences(whole, tmp_path) == []
    assert points(tmp_path) == points(whole)


def test_a_run_that_early_stopping_ended_is_only_tested(
    begin: Begin, resume: Begin, reference: Reference, tmp_path: Path
) -> None:
    killed = begin(tmp_path, *NEVER_BETTER, before=signal_at(TEST_STEP, signal.SIGKILL)).wait()
    assert killed.status == -signal.SIGKILL
    command = resume(tmp_path)
    assert "early stopping ended the training in epoch 2" in command.output
    assert step(tmp_path) == 2 * STEPS_PER_EPOCH
    assert differences(reference(*NEVER_BETTER), tmp_path) == []


@pytest.mark.parametrize("overrides", [[], ["trainer.max_steps=30"]])
def test_a_run_killed_during_its_test_is_only_tested(
    begin: Begin, resume: Begin, reference: Reference, tmp_path: Path, overrides: list[str]
) -> None:
    killed = begin(tmp_path, *overrides, before=signal_at(TEST_STEP, signal.SIGKILL)).wait()
    assert killed.status == -signal.SIGKILL
    last = tmp_path / "checkpoints" / "last.ckpt"
    before = last.stat().st_mtime_ns
    assert resume(tmp_path).status == 0
    assert last.stat().st_mtime_ns == before
    whole = reference(*overrides)
    assert differences(whole, tmp_path) == []
    assert points(tmp_path) == points(whole)


def test_a_run_tells_of_its_whole_time_though_it_tests_earlier_weights(
    begin: Begin, tmp_path: Path
) -> None:
    before = """
import time
from cvae.training.recorder import Recorder
Recorder.on_train_end = lambda *_: time.sleep(2)
"""
    assert begin(tmp_path, before=before).wait().status == 0
    in_training = load(tmp_path / "checkpoints" / "last.ckpt")["callbacks"]["Recorder"]["wall"]
    assert results(tmp_path)["wall_seconds"] > in_training + 2


@pytest.mark.parametrize("place", [TRAIN_END, TEST_STEP])
def test_a_signal_after_training_is_not_lost(begin: Begin, tmp_path: Path, place: str) -> None:
    command = begin(
        tmp_path, "trainer.max_epochs=1", before=signal_at(place, signal.SIGTERM)
    ).wait()
    assert command.status == 128 + signal.SIGTERM
    assert f"python -m cvae.resume {tmp_path} goes on" in command.error
    assert not (tmp_path / "metrics.json").exists()


def test_the_same_signal_twice_is_one_wish(begin: Begin, tmp_path: Path) -> None:
    """As of `timeout`, which tells the process and then its group."""
    before = signal_at(STEP_END, signal.SIGTERM, at_step=30, times=2)
    assert begin(tmp_path, before=before).wait().status == 128 + signal.SIGTERM
    assert step(tmp_path) == 30


def test_a_second_signal_ends_a_run_at_once(begin: Begin, tmp_path: Path) -> None:
    """In the middle of a step, so that the checkpoint is older."""
    later = "import cvae.interruption as interruption; interruption.TOGETHER = 0\n"
    before = later + signal_at(STEP_END, signal.SIGTERM, at_step=30, times=2)
    command = begin(tmp_path, before=before).wait()
    assert command.status == 128 + signal.SIGTERM
    assert "interrupted by SIGTERM" in command.error
    assert step(tmp_path) == STEPS_PER_EPOCH


@pytest.mark.parametrize(("ignored", "status"), [(False, 128 + signal.SIGHUP), (True, 0)])
def test_a_terminal_that_closes_is_a_signal_but_not_under_nohup(
    begin: Begin, tmp_path: Path, ignored: bool, status: int
) -> None:
    started = (
        f"import signal; signal.signal(signal.SIGHUP, signal.SIG_{'IGN' if ignored else 'DFL'})\n"
    )
    before = started + signal_at(STEP_END, signal.SIGHUP, at_step=30)
    assert begin(tmp_path, before=before).wait().status == status
    assert step(tmp_path) == (60 if ignored else 30)


def test_a_bar_that_nobody_reads_any_more_does_not_end_a_run(begin: Begin, tmp_path: Path) -> None:
    unread = "import os; here, there = os.pipe(); os.dup2(there, 1); os.close(here)\n"
    before = unread + signal_at(STEP_END, signal.SIGTERM, at_step=30)
    command = begin(tmp_path, "trainer.enable_progress_bar=true", before=before).wait()
    assert command.status == 128 + signal.SIGTERM
    assert "goes on from the last checkpoint" in command.error
    assert step(tmp_path) == 30


def test_the_command_that_goes_on_is_quoted_for_a_shell() -> None:
    command = resume_command(Path("my runs/a"), ["trainer.max_epochs=4"])
    assert command == "python -m cvae.resume 'my runs/a' trainer.max_epochs=4"


def test_a_finished_run_is_not_trained_again_unless_for_longer(
    resume: Begin, reference: Reference
) -> None:
    folder = reference()
    before = (folder / "metrics.json").read_bytes()
    command = resume(folder)
    assert command.status == 1
    assert f"{folder} is finished: trainer.max_epochs=NUMBER trains it" in command.error
    assert (folder / "metrics.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("optimizer.lr=0.1", "optimizer.lr=0.1: a run goes on with its own config"),
        ("trainer.unknown=1", "trainer.unknown"),
        ("trainer.max_epochs=many", "trainer.max_epochs=many"),
        ("trainer.max_epochs=1", "max_epochs=1"),
    ],
)
def test_a_change_that_cannot_be_is_refused_and_leaves_the_run_as_it_was(
    resume: Begin, reference: Reference, tmp_path: Path, change: str, line: str
) -> None:
    folder = shutil.copytree(reference(), tmp_path / "run")
    command = resume(folder, change)
    assert command.status == 1
    assert line in command.error
    assert differences(reference(), folder) == []


@pytest.fixture
def looked_at(reference: Reference, tmp_path: Path) -> Path:
    """The folder of a finished run with something that was made of its weights."""
    folder = shutil.copytree(reference(), tmp_path / "run")
    (folder / "evaluation.json").write_text("{}")
    return folder


def test_what_was_made_of_weights_stays_where_nothing_is_trained(
    resume: Begin, reference: Reference, looked_at: Path
) -> None:
    assert resume(looked_at, "trainer.max_epochs=3").status == 0
    assert (looked_at / "evaluation.json").is_file()
    assert differences(reference(), looked_at) == []


def test_a_failure_before_the_first_checkpoint_leaves_a_run_as_it_was(
    resume: Begin, reference: Reference, looked_at: Path
) -> None:
    before = """
from cvae.errors import UserError
from cvae.training.module import Training
def training_step(*_):
    raise UserError("a failure")
Training.training_step = training_step
"""
    command = resume(looked_at, "trainer.max_epochs=4", before=before)
    assert command.status == 1
    assert "a failure" in command.error
    assert (looked_at / "evaluation.json").is_file()
    assert differences(reference(), looked_at) == []


@pytest.mark.parametrize("place", ["Training.configure_optimizers", STEP_END])
def test_a_longer_training_that_was_stopped_goes_on_to_its_new_end(
    resume: Begin, looked_at: Path, place: str
) -> None:
    """Before its first step, and after it, when the weights are others already."""
    command = resume(looked_at, "trainer.max_epochs=4", before=signal_at(place, signal.SIGTERM))
    assert f"interrupted by SIGTERM: python -m cvae.resume {looked_at} goes on" in command.error
    assert (looked_at / "evaluation.json").is_file() == (step(looked_at) == 60)
    assert resume(looked_at).status == 0
    assert results(looked_at)["epochs"] == 4
    assert not (looked_at / "evaluation.json").exists()


def test_a_change_is_read_as_the_command_line_of_train_is(reference: Reference) -> None:
    """YAML's numbers of base 60 and all."""
    words = ["trainer.max_time=10:00:00:00", "trainer.gradient_clip_val=1e-2"]
    trainer = Run(reference()).changed(words).config["trainer"]
    assert (trainer["max_time"], trainer["gradient_clip_val"]) == ("10:00:00:00", 0.01)


def test_latest_is_the_run_with_the_newest_checkpoint(
    resume: Begin, reference: Reference, tmp_path: Path
) -> None:
    """Whatever its name, and though a run without one has begun since."""
    for name, age in {"a": 2, "b": 0, "c": 1}.items():
        folder = tmp_path / "outputs" / "name" / name
        checkpoints = folder / "checkpoints"
        shutil.copytree(reference() / "checkpoints", checkpoints)
        shutil.copy(reference() / "config.yaml", folder)
        (folder / "metrics.json").write_text("{}")
        os.utime(checkpoints / "last.ckpt", (1e9 - age, 1e9 - age))
    (tmp_path / "outputs" / "name" / "d" / "checkpoints").mkdir(parents=True)
    shutil.copy(reference() / "config.yaml", tmp_path / "outputs" / "name" / "d")
    command = resume("latest", cwd=tmp_path)
    assert "outputs/name/b is finished" in command.error


def test_latest_needs_a_run(resume: Begin, tmp_path: Path) -> None:
    assert "no run with a checkpoint below" in resume("latest", cwd=tmp_path).error


def test_slurm_puts_a_run_back_to_work_where_it_was(
    begin: Begin, reference: Reference, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    job = slurm_job(tmp_path)
    assert preempted(begin, folder, STEP_END, 30, job) == 30
    job["SLURM_RESTART_COUNT"] = "1"
    assert preempted(begin, folder, TEST_STEP, 0, job) == 60
    assert (tmp_path / "asked").read_text() == "requeue 4711\n" * 2
    assert begin(folder, **job).wait().status == 0
    whole = reference()
    assert differences(whole, folder) == []
    assert points(folder) == points(whole)
    assert [path.name for path in folder.glob("*.ckpt")] == []


@pytest.mark.parametrize(
    ("word", "other"), [("seed=1", "seed, data"), ("trainer.max_epochs=4", "trainer")]
)
def test_a_restart_leaves_a_run_of_another_config_alone(
    begin: Begin, reference: Reference, tmp_path: Path, word: str, other: str
) -> None:
    folder = shutil.copytree(reference(), tmp_path / "run")
    command = begin(folder, word, TORCHELASTIC_RESTART_COUNT="1").wait()
    assert command.status == 1
    assert f"{folder} holds a run with another {other}: choose another" in command.error
    assert differences(reference(), folder) == []


def test_a_restart_of_a_command_that_was_done_ends_well(
    begin: Begin, reference: Reference, tmp_path: Path
) -> None:
    folder = shutil.copytree(reference(), tmp_path / "run")
    assert begin(folder, TORCHELASTIC_RESTART_COUNT="1").wait().status == 0
    assert differences(reference(), folder) == []


def slurm_job(tmp_path: Path) -> dict[str, str]:
    """The environment of a job, with a scontrol that notes what it is asked."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tools / "scontrol").chmod(0o755)
    return {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "PATH": f"{tools}:{os.environ['PATH']}",
    }


def test_slurm_does_not_put_back_what_would_begin_anew(begin: Begin, tmp_path: Path) -> None:
    """Its folder is named by the time, and the next start's by another."""
    before = signal_at(STEP_END, signal.SIGUSR1, 30)
    folder = tmp_path / "${now:%Y}"
    command = begin(folder, before=before, **slurm_job(tmp_path)).wait()
    assert command.status == 128 + signal.SIGUSR1
    assert "job 4711 is not put back into SLURM's queue" in command.output
    assert not (tmp_path / "asked").exists()
    (written,) = tmp_path.glob("20*")
    assert f"python -m cvae.resume {written} goes on" in command.error
    assert step(written) == 30


@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu"])
def test_slurm_may_take_the_machine_at_any_time(begin: Begin, tmp_path: Path, trainer: str) -> None:
    """Before the first step of one process, and in the midst of two."""
    folder, place = tmp_path / "run", "Training.configure_optimizers"
    first = signal_at(place, signal.SIGUSR1) if trainer == "cpu" else ""
    endless = ("trainer.max_epochs=1000", f"trainer={trainer}")
    command = begin(folder, *endless, before=first, **slurm_job(tmp_path))
    if trainer == "ddp_cpu":
        command.until((folder / "checkpoints" / "last.ckpt").exists)
        command.send(signal.SIGUSR1)
    assert command.wait().status == 128 + signal.SIGUSR1, command.output
    assert "interrupted by SIGUSR1" in command.error
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"


def test_a_run_killed_while_it_is_trained_for_longer_is_not_finished(
    begin: Begin, resume: Begin, reference: Reference, tmp_path: Path
) -> None:
    assert begin(tmp_path, "trainer.max_epochs=1").wait().status == 0
    kill = signal_at(STEP_END, signal.SIGKILL, 30)
    assert resume(tmp_path, "trainer.max_epochs=3", before=kill).status == -signal.SIGKILL
    assert resume(tmp_path).status == 0
    assert differences(reference(), tmp_path) == []


def test_a_folder_is_not_free_while_a_worker_of_a_killed_parent_lives(
    reference: Reference, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(reference(), tmp_path / "run"))
    with run.hold_for_parent(), pytest.raises(UserError, match="in use"), run.hold():
        pass
    with run.hold():
        pass


def preempted(begin: Begin, folder: Path, place: str, at_step: int, job: dict[str, str]) -> int:
    """The step at which a run ends that SLURM will take the machine away from."""
    command = begin(folder, before=signal_at(place, signal.SIGUSR1, at_step), **job).wait()
    assert command.status == 128 + signal.SIGUSR1
    assert f"interrupted by SIGUSR1: python -m cvae.resume {folder} goes on" in command.error
    return step(folder)


def test_an_array_job_is_put_back_by_its_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run(command: Any, **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("SLURM_JOB_ID", "4713")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    requeue()
    assert asked == [["scontrol", "requeue", "4711_2"]]
