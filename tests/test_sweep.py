"""Sweeps: their summary, their failures, and what is left of them when they are stopped."""

import csv
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from conftest import SHORT
from cvae.errors import UserError
from cvae.jobs import announce, is_refused, jobs
from cvae.run import Run
from folders import differences, finished, results, step
from warm import PATIENCE, Command, processes_with

Sweep = Callable[..., Command]
Resume = Callable[..., Command]
Reference = Callable[..., Path]
SIZES = "model.latent_dim=2,3"


def lines(command: Command) -> list[str]:
    return command.output.strip().splitlines()


def test_a_job_that_fails_leaves_its_line_and_the_others_go_on(
    sweep: Sweep, resume: Resume, tmp_path: Path
) -> None:
    now = tmp_path / "${now:%f}"  # the microsecond: another one, whenever it is asked for
    command = sweep(now, *SHORT, "model.latent_dim=2,0,3", "objective.beta=0.5").wait()
    (folder,) = tmp_path.iterdir()
    assert command.status == 1
    assert f"1 job of the sweep failed or did not finish: {folder}/1;" in lines(command)[-1]
    assert finished(folder) == {"0", "2"}
    why = "model.latent_dim=0: Input should be greater than 0"
    assert (folder / "1" / "failure.txt").read_text() == f"{why}\n"
    assert f"- failed: {folder}/1: {why}" in (folder / "comparison.md").read_text()
    with (folder / "averages.csv").open(newline="") as file:
        rows = {row["model.latent_dim"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"2", "3"}
    assert float(rows["3"]["elbo"]) == results(folder / "2")["test/elbo"]
    assert (folder / "sizes.png").is_file()
    assert_hyperparameters(folder / "2", {"model/latent_dim": 3, "objective/beta": 0.5})
    assert "- model.latent_dim=3\n" in (folder / "2" / ".hydra" / "overrides.yaml").read_text()

    before = (folder / "0" / "metrics.json").stat().st_mtime_ns
    command = resume(folder)  # the failed one is tried again, and no other
    assert command.status == 1
    assert f"failed: {folder}/1: {why}" in command.output
    assert (folder / "0" / "metrics.json").stat().st_mtime_ns == before


def test_a_sweep_with_a_job_that_trains_elsewhere_is_refused(sweep: Sweep, tmp_path: Path) -> None:
    with Run(tmp_path / "1").hold():  # without a checkpoint yet, under SLURM for example
        command = sweep(tmp_path, *SHORT, SIZES).wait()
    assert command.status == 1
    assert f"{tmp_path}/1 is in use by another process" in command.output
    assert not (tmp_path / "sweep.txt").exists()
    assert not list(tmp_path.glob("*/config.yaml"))


def test_a_sweep_leaves_a_config_of_something_else_alone(sweep: Sweep, tmp_path: Path) -> None:
    config = tmp_path / "1" / "config.yaml"
    config.parent.mkdir()
    config.write_text("database: here")
    command = sweep(tmp_path, *SHORT, SIZES).wait()
    assert command.status == 1
    (line,) = lines(command)
    assert f"{config} is not a run's and would be lost" in line
    assert config.read_text() == "database: here"
    assert not (tmp_path / "0" / "config.yaml").exists()


def test_jobs_of_one_folder_are_refused(sweep: Sweep, tmp_path: Path) -> None:
    command = sweep(tmp_path, *SHORT, SIZES, "hydra.sweep.subdir=same").wait()
    assert command.status == 1
    (line,) = lines(command)
    assert "hydra.sweep.subdir is the same for several jobs: put ${hydra:job.num} into it" in line
    assert not (tmp_path / "same").exists()


def test_jobs_are_found_at_any_depth(
    compose: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    announce(tmp_path)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").touch()
    assert is_refused(str(tmp_path))
    for name in ("vae/10", "vae/2"):
        Run(tmp_path / name, compose()).write_config()
    assert not is_refused(str(tmp_path))
    assert [run.folder for run in jobs(tmp_path)] == [tmp_path / "vae/2", tmp_path / "vae/10"]


def assert_hyperparameters(run: Path, expected: dict[str, float]) -> None:
    """What TensorBoard's HParams shows of a run: settings and final numbers."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert {name: settings[name].number_value for name in expected} == expected
    assert settings["prior/_target_"].string_value == "cvae.models.learned_prior"
    experiment = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    infos = plugin_data_pb2.HParamsPluginData.FromString(experiment).experiment.metric_infos
    shown = {info.name.tag for info in infos}
    for term in ("test/elbo", "test/reconstruction", "test/kl"):
        assert term in shown
        assert events.Scalars(term)[-1].value == pytest.approx(results(run)[term], rel=1e-6)


def test_a_sweep_of_which_no_job_has_a_config_says_why(
    sweep: Sweep, resume: Resume, tmp_path: Path
) -> None:
    command = sweep(tmp_path, "optimizer.lr=${nothing}", "seed=0,1").wait()
    both = f"2 jobs of the sweep failed or did not finish: {tmp_path}/0, {tmp_path}/1; mend"
    why = "optimizer.lr: Interpolation key 'nothing' not found"
    for ended in (command, resume(tmp_path)):
        assert ended.status == 1
        assert both in lines(ended)[-1]
        assert f"failed: {tmp_path}/1: {why}" in ended.output
    assert f"- failed: {tmp_path}/0: {why}" in (tmp_path / "comparison.md").read_text()


@pytest.mark.slow
def test_a_word_that_does_not_exist_is_told_before_any_job_begins(
    sweep: Sweep, tmp_path: Path
) -> None:
    command = sweep(tmp_path, *SHORT, "model=vae,vea").wait()
    assert command.status == 1
    assert "model=vea: 'vea' is not one of" in command.error
    assert not list(tmp_path.glob("*/config.yaml"))


def test_a_sweep_that_cannot_begin_says_so_in_a_line(sweep: Sweep, tmp_path: Path) -> None:
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"]
    for command, line in (
        (sweep(tmp_path, SIZES, *joblib), "hydra.launcher.n_jobs=0: 1 or more"),
        (sweep(Path("/proc/none"), SIZES), "/proc/none: No such file or directory: choose"),
    ):
        assert command.wait().status == 1
        (told,) = lines(command)
        assert line in told


HAPPENINGS = """
import os
from cvae.training.recorder import Recorder
original = Recorder.on_train_epoch_end
def happen(self, trainer, module):
    original(self, trainer, module)
    job = self.path.parent.name
    if job == "0" and trainer.current_epoch == 1:
        os.kill(os.getpid(), 9)
    if job == "1":
        raise ZeroDivisionError("a fault")
Recorder.on_train_epoch_end = happen
"""


@pytest.mark.slow
def test_killed_faulty_and_diverged_jobs_leave_the_others_and_are_run_again(
    sweep: Sweep, resume: Resume, reference: Reference, tmp_path: Path
) -> None:
    command = sweep(tmp_path, "optimizer.lr=0.001,0.002,1e30,0.003", before=HAPPENINGS).wait()
    assert command.status == 1
    assert finished(tmp_path) == {"3"}
    notes = {path.parent.name: path.read_text() for path in tmp_path.glob("*/failure.txt")}
    assert notes.keys() == {"0", "1", "2"}
    assert notes["0"] == "its process was killed (SIGKILL)\n"
    assert notes["1"] == "ZeroDivisionError: a fault\n"
    assert notes["2"].startswith("training diverged in epoch 1, step")
    listed = [line for line in lines(command) if line.startswith("failed: ")]
    assert listed == [f"failed: {tmp_path}/{job}: {notes[job].strip()}" for job in "012"]

    assert resume(tmp_path).status == 1
    assert finished(tmp_path) == {"0", "1", "3"}
    assert [path.parent.name for path in tmp_path.glob("*/failure.txt")] == ["2"]
    assert differences(reference(), tmp_path / "0") == []
    assert differences(reference("optimizer.lr=0.002"), tmp_path / "1") == []


STOPPED = """
import os, time
from cvae.training.recorder import Recorder
original = Recorder.on_train_batch_end
def stop(self, trainer, *arguments):
    original(self, trainer, *arguments)
    if self.path.parent.name == "0" and trainer.global_step == 30:
        os.kill(os.getppid(), {})  # the sweep's own process
        time.sleep(2)
Recorder.on_train_batch_end = stop
"""


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_was_stopped_is_resumed_from_its_folder(
    sweep: Sweep, resume: Resume, reference: Reference, tmp_path: Path, signum: signal.Signals
) -> None:
    """The job that ran writes a checkpoint, and those that had not begun are known."""
    words = (SIZES, "network.hidden=[${model.latent_dim}]")  # of each job
    command = sweep(tmp_path, *words, before=STOPPED.format(int(signum))).wait()
    if signum == signal.SIGKILL:
        assert command.status == -signum
        wait_until_free(tmp_path / "0")
    else:
        assert command.status == 128 + signum
        stopped = f"interrupted by {signum.name}: python -m cvae.resume {tmp_path} goes on"
        assert stopped in lines(command)[-1]
    assert step(tmp_path / "0") == 30
    assert finished(tmp_path) == set()
    assert (tmp_path / "1" / "config.yaml").is_file()
    assert not (tmp_path / "1" / "checkpoints").exists()

    command = resume(tmp_path)
    assert command.status == 0, command.output
    for job, size in (("0", 2), ("1", 3)):
        whole = reference(f"model.latent_dim={size}", f"network.hidden=[{size}]")
        assert differences(whole, tmp_path / job) == []
    command = resume(tmp_path)
    assert command.status == 1
    assert f"{tmp_path} is finished: trainer.max_epochs=NUMBER" in lines(command)[-1]


def wait_until_free(folder: Path) -> None:
    """Until the process of a job whose sweep was killed has ended, too."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with Run(folder).hold():
                return
        except UserError:
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.mark.slow
def test_the_same_command_in_the_same_folder_goes_on_and_other_words_are_refused(
    sweep: Sweep, reference: Reference, tmp_path: Path
) -> None:
    kill = HAPPENINGS.replace("raise ZeroDivisionError", "print")
    assert sweep(tmp_path, SIZES, before=kill).wait().status == 1
    before = (tmp_path / "1" / "metrics.json").stat().st_mtime_ns
    command = sweep(tmp_path, SIZES).wait()
    assert command.status == 0, command.output
    assert (tmp_path / "1" / "metrics.json").stat().st_mtime_ns == before
    assert differences(reference("model.latent_dim=2"), tmp_path / "0") == []
    words = (tmp_path / "sweep.txt").read_text()
    command = sweep(tmp_path, "model.latent_dim=4,3").wait()
    assert command.status == 1
    (line,) = lines(command)
    assert f"hydra.sweep.dir={tmp_path} holds another sweep, whose job 0 has other values" in line
    assert step(tmp_path / "0") == 60
    assert (tmp_path / "sweep.txt").read_text() == words


@pytest.mark.slow
def test_a_sweep_is_trained_for_longer(
    sweep: Sweep, resume: Resume, reference: Reference, tmp_path: Path
) -> None:
    assert sweep(tmp_path, SIZES, "trainer.max_epochs=2").wait().status == 0
    refused = resume(tmp_path, "optimizer.lr=1")
    assert refused.status == 1
    assert "optimizer.lr=1: a run goes on with its own config" in lines(refused)[-1]
    command = resume(tmp_path, "trainer.max_epochs=3")
    assert command.status == 0, command.output
    assert differences(reference("model.latent_dim=3"), tmp_path / "1") == []


@pytest.mark.slow
def test_two_jobs_of_two_processes_are_two_jobs(sweep: Sweep, tmp_path: Path) -> None:
    command = sweep(tmp_path, *SHORT, SIZES, "trainer=ddp_cpu").wait()
    assert command.status == 0, command.output
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"0", "1"}
    for job in "01":
        assert results(tmp_path / job)["device"].startswith("2 x cpu")
    assert command.output.count("training on 2 x cpu") == 2
    assert not processes_with(str(tmp_path))


@pytest.mark.slow
def test_optuna_looks_for_the_largest_metric_whatever_trials_fail(
    sweep: Sweep, tmp_path: Path
) -> None:
    search = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=6", "hydra.sweeper.sampler.seed=0")
    ranges = ("model.latent_dim=choice(2,0,3)", "optimizer.lr=interval(0.001,0.1)")
    command = sweep(tmp_path, *SHORT, *search, *ranges).wait()
    assert command.status == 1
    failed = {path.parent.name for path in tmp_path.glob("*/failure.txt")}
    assert 0 < len(failed) < 6
    assert finished(tmp_path) == set("012345") - failed
    found = OmegaConf.load(tmp_path / "optimization_results.yaml")
    assert found["best_value"] == max(results(tmp_path / job)["best"] for job in finished(tmp_path))


@pytest.mark.slow
def test_a_search_among_words_that_do_not_exist_says_so(sweep: Sweep, tmp_path: Path) -> None:
    search = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "model=choice(vea)")
    command = sweep(tmp_path, *search).wait()
    assert command.status == 1
    assert "model=vea: 'vea' is not one of" in lines(command)[-1]


KILLED = """
import os
from cvae import sweep
from cvae.run import Run
original = {owner}.{name}
def killed(*arguments):
    original(*arguments)
    os.kill(os.getpid(), 9)
{owner}.{name} = killed
"""


def test_a_sweep_that_is_killed_before_all_configs_are_written_is_not_resumed_as_a_shorter_one(
    sweep: Sweep, resume: Resume, tmp_path: Path
) -> None:
    before = KILLED.format(owner="Run", name="write_config")
    assert sweep(tmp_path, *SHORT, SIZES, before=before).wait().status == -signal.SIGKILL
    assert [path.parent.name for path in tmp_path.glob("*/config.yaml")] == ["0"]
    command = resume(tmp_path)
    assert command.status == 1
    assert f"{tmp_path} holds several runs" in lines(command)[-1]
    assert sweep(tmp_path, *SHORT, SIZES).wait().status == 0  # its own command begins it
    assert finished(tmp_path) == {"0", "1"}


def test_a_job_without_a_config_is_still_of_a_sweep_that_is_killed_before_it_begins(
    sweep: Sweep, resume: Resume, tmp_path: Path
) -> None:
    before = KILLED.format(owner="sweep", name="announce")
    command = sweep(tmp_path, *SHORT, "optimizer.lr=0.001,${nothing}", before=before).wait()
    assert command.status == -signal.SIGKILL
    command = resume(tmp_path)
    assert command.status == 1
    assert finished(tmp_path) == {"0"}
    why = "optimizer.lr: Interpolation key 'nothing' not found"
    assert f"failed: {tmp_path}/1: {why}" in command.output
    assert f"1 job of the sweep failed or did not finish: {tmp_path}/1;" in lines(command)[-1]
