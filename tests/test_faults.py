"""Folders that were damaged, filled up, altered or taken: a line that says what to do."""

import gzip
import json
import os
import pickle
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cvae.checkpoint import read_checkpoint
from cvae.errors import UserError
from cvae.evaluation.data import data_of
from cvae.run import Run
from folders import differences, load, step
from warm import Command, signal_at

Begin = Callable[..., Command]
Reference = Callable[..., Path]
Damage = Callable[[dict[str, Any]], object]
VERSION = "pytorch-lightning_version"
LARGE = ("network.hidden=[256]", "data.split=full")  # a checkpoint is larger than all other files


@pytest.fixture(scope="module")
def stopped(begin: Begin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of which an epoch and a half are done; to be copied."""
    folder = tmp_path_factory.mktemp("stopped")
    before = signal_at("Recorder.on_train_batch_end", signal.SIGTERM, at_step=30)
    assert begin(folder, before=before).wait().status == 143
    return folder


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    return shutil.copytree(stopped, tmp_path / "run")


def last(run: Path) -> Path:
    return run / "checkpoints" / "last.ckpt"


def save_damaged(run: Path, damage: Damage) -> None:
    content = load(last(run))
    damage(content)
    torch.save(content, last(run))


def assert_refused(command: Command, *texts: str) -> None:
    """It ended with one line that says what is wrong."""
    assert command.status == 1, command.output
    for text in texts:
        assert text in command.error


def test_what_is_left_of_a_checkpoint_is_named_with_what_can_be_done(
    resume: Begin, reference: Reference, run: Path
) -> None:
    """The best checkpoint is whole, and the run goes on from it as if nothing had happened."""
    best = run / "checkpoints" / "best.ckpt"
    before = best.read_bytes()
    last(run).write_bytes(last(run).read_bytes()[:-1000])
    assert_refused(resume(run), f"{last(run)} is damaged", f"copy {best} over it, or train the run")
    assert best.read_bytes() == before
    assert step(run, "best") == 20
    shutil.copy(best, last(run))
    assert resume(run).status == 0
    assert differences(reference(), run) == []


def test_nothing_in_a_checkpoint_is_run(resume: Begin, run: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(run / "attacked"),)

    for content in (Attack(), {**load(last(run)), "attack": Attack()}):
        torch.save(content, last(run))
        assert_refused(resume(run), f"{last(run)} is damaged or not a checkpoint")
    last(run).write_bytes(pickle.dumps(Attack()))
    assert_refused(resume(run), f"{last(run)} is damaged or not a checkpoint")
    assert not (run / "attacked").exists()


def test_a_best_checkpoint_that_cannot_be_read_is_named(
    resume: Begin, reference: Reference, tmp_path: Path
) -> None:
    folder = shutil.copytree(reference(), tmp_path / "run")
    (folder / "metrics.json").unlink()
    best = folder / "checkpoints" / "best.ckpt"
    best.write_bytes(b"nothing")
    assert_refused(resume(folder), f"{best} is damaged or not a checkpoint", "remove it and")


def test_without_its_best_checkpoint_a_run_ends_with_the_last(
    resume: Begin, reference: Reference, tmp_path: Path
) -> None:
    folder = shutil.copytree(reference(), tmp_path / "run")
    (folder / "metrics.json").unlink()
    (folder / "checkpoints" / "best.ckpt").unlink()
    assert resume(folder).status == 0
    found = json.loads((folder / "metrics.json").read_text())
    assert (found["weights"], found["best"]) == ("last", None)
    assert not any(name.startswith("val/") for name in found), "those were of the best"


def test_a_config_of_something_else_is_not_written_over(
    compose: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("database: here")
    with pytest.raises(UserError, match=f"{config} is not a run's and would be lost"):
        Run(tmp_path, compose()).begin()
    assert config.read_text() == "database: here"


def drop(*keys: str) -> Damage:
    def damage(content: dict[str, Any]) -> object:
        for key in keys[:-1]:
            content = content[key]
        return content.pop(keys[-1])

    return damage


def reshape_optimizer_state(content: dict[str, Any]) -> None:
    content["optimizer_states"][0]["state"][0]["exp_avg"] = torch.zeros(3)


def reshape_weights(content: dict[str, Any]) -> None:
    name = next(name for name in content["state_dict"] if "weight" in name)
    content["state_dict"][name] = torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        pytest.param(drop("loops"), "loops", id="no loops"),
        pytest.param(
            drop("loops", "fit_loop", "epoch_progress"), "epoch_progress", id="no epoch_progress"
        ),
        pytest.param(drop("callbacks", "Recorder"), "Recorder", id="no Recorder"),
        pytest.param(drop("callbacks", "Recorder", "rows"), "rows", id="no rows"),
        pytest.param(drop("ImageData"), "ImageData", id="no ImageData"),
        pytest.param(drop("ImageData", "given"), "given", id="no given"),
        pytest.param(drop("optimizer_states"), "optimizer_states", id="no optimizer_states"),
        pytest.param(drop("lr_schedulers"), "lr_schedulers", id="no lr_schedulers"),
        pytest.param(reshape_optimizer_state, "another shape", id="optimizer state"),
        pytest.param(reshape_weights, "size mismatch", id="weights"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    resume: Begin, run: Path, damage: Damage, line: str
) -> None:
    save_damaged(run, damage)
    before = last(run).read_bytes()
    assert_refused(resume(run), f"{last(run)} does not fit {run}/config.yaml", line)
    assert last(run).read_bytes() == before


def test_a_checkpoint_of_another_model_is_refused(
    begin: Begin, resume: Begin, run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    assert begin(other, "model.latent_dim=5", "trainer.max_epochs=1").wait().status == 0
    shutil.copy(last(other), last(run))
    assert_refused(resume(run), f"{last(run)} does not fit {run}/config.yaml", "size mismatch")


FILLING = """
import resource
from cvae.training.recorder import Recorder
original = Recorder.on_train_epoch_start
def filling(self, trainer, *arguments):
    original(self, trainer, *arguments)
    if trainer.current_epoch == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
Recorder.on_train_epoch_start = filling
"""


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(begin: Begin, tmp_path: Path) -> None:
    """A limit of the operating system on the size of files stands in for the disk's."""
    command = begin(tmp_path, *LARGE, before=FILLING).wait()
    assert_refused(command, f"{last(tmp_path)} could not be written", "free some space")
    assert read_checkpoint(last(tmp_path))["global_step"] == 20
    assert [path.name for path in last(tmp_path).parent.iterdir()] == ["last.ckpt"]


def test_a_disk_that_is_full_leaves_a_finished_run_as_it_was(
    resume: Begin, reference: Reference, tmp_path: Path
) -> None:
    """With what was measured of its weights, and without a row of an epoch that it lost."""
    whole = reference(*LARGE, "trainer.max_epochs=1")
    folder = shutil.copytree(whole, tmp_path / "run")
    (folder / "evaluation.json").write_text("{}")
    command = resume(folder, "trainer.max_epochs=2", before=FILLING)
    assert_refused(command, f"{last(folder)} could not be written", "free some space")
    assert (folder / "evaluation.json").is_file()
    assert differences(whole, folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting is for root")
def test_a_small_disk_ends_a_run_with_a_line(begin: Begin, resume: Begin, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no mounting here")
    try:
        command = begin(disk / "run").wait()  # a checkpoint is of 0.6 MB, and there are two
        assert_refused(command, "could not be written", "free some space")
        for path in (disk / "run" / "checkpoints").iterdir():
            read_checkpoint(path)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_made_is_named(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    command = begin(tmp_path / "file" / "run").wait()
    assert command.status == 1
    assert str(tmp_path / "file") in command.error


def test_a_run_does_not_go_on_with_other_data(
    begin: Begin, resume: Begin, mnist_root: str, tmp_path: Path
) -> None:
    data, folder = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for path in Path(mnist_root).glob("*-ubyte*"):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        (data / path.name.removesuffix(".gz")).write_bytes(content)
    assert begin(folder, f"data.root={data}", "trainer.max_epochs=1").wait().status == 0
    labels = data / "train-labels-idx1-ubyte"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-1] + bytes([9 - whole[-1]]))
    before = last(folder).read_bytes()
    command = resume(folder, "trainer.max_epochs=2")
    assert_refused(command, f"{labels} has changed since the run began: put the file back")
    assert last(folder).read_bytes() == before
    labels.write_bytes(whole)
    assert resume(folder, "trainer.max_epochs=2").status == 0


def test_two_processes_do_not_share_a_folder(begin: Begin, resume: Begin, run: Path) -> None:
    first = resume(run, "trainer.max_epochs=1000", wait=False)
    first.until(lambda: "training on" in first.output)
    assert_refused(resume(run), f"{run} is in use by another process")
    assert_refused(begin(run).wait(), f"{run} is in use by another process")
    first.send(15)
    assert first.wait().status == 143


def test_a_resumed_run_that_diverges_keeps_the_checkpoint(
    resume: Begin, stopped: Path, run: Path
) -> None:
    """The rate is made to explode in a step that the run has not done yet."""
    before = """
from cvae.training.schedules import Constant
Constant.__call__ = lambda self, done: 1.0 if done < 0.75 else 1e30
"""
    command = resume(run, before=before)
    assert_refused(command, "training diverged in epoch 3, step 4", "largest log-scale of q(z|x,y)")
    assert step(run) == 40
    read_checkpoint(run / "checkpoints" / "best.ckpt")
    shutil.copy(stopped / "config.yaml", run)
    assert resume(run).status == 0
    assert json.loads((run / "metrics.json").read_text())["epochs"] == 3


def put(value: object, *keys: Any) -> Damage:
    def damage(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return damage


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        pytest.param(drop("global_step"), "no global_step", id="no step"),
        pytest.param(put("1", "global_step"), "no global_step", id="step of another kind"),
        pytest.param(drop(VERSION), f"KeyError: '{VERSION}'", id="no version"),
        pytest.param(put("of mine", VERSION), "of mine", id="version of another kind"),
        pytest.param(put(torch.zeros(1), "state_dict", 1), "without a name", id="no name"),
        pytest.param(
            put([1.0], "optimizer_states", 0, "state", 0, "exp_avg"), "exp_avg is", id="no tensor"
        ),
    ],
)
def test_what_a_checkpoint_of_elsewhere_lacks_is_told_in_a_line(
    resume: Begin, run: Path, damage: Damage, line: str
) -> None:
    save_damaged(run, damage)
    assert_refused(resume(run), str(last(run)), line)


def test_weights_without_a_name_are_not_evaluated(run: Path) -> None:
    best = run / "checkpoints" / "best.ckpt"
    torch.save({**load(best), "state_dict": {1: torch.zeros(1)}}, best)
    with pytest.raises(UserError, match=f"{best} is damaged or not a checkpoint .*without a name"):
        Run(run).load_model()


def test_the_data_of_a_finished_run_need_no_place_in_training(run: Path) -> None:
    best = run / "checkpoints" / "best.ckpt"
    content = load(best)
    del content["ImageData"]["given"]
    torch.save(content, best)
    assert data_of(Run(run)).record["name"] == "mnist"
    content["ImageData"]["hashes"][1] = "sha256:"
    torch.save(content, best)
    with pytest.raises(UserError, match=f"{best} does not say which data it was trained on"):
        data_of(Run(run))
