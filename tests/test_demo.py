"""`python -m cvae.demo`: which run becomes the page, and what happens where none can."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from short_judge import BEFORE
from warm import Warm

# in place of the training of the main job, minutes long
TRAINING = """
import subprocess, sys
started = subprocess.Popen
subprocess.Popen = lambda command, **options: started([sys.executable, "-c", {script!r}], **options)
"""
PATIENT = """
import pathlib, signal, sys, time
def end(*_):
    pathlib.Path("ended").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
pathlib.Path("begun").touch()
time.sleep(60)
"""


@pytest.mark.slow
def test_the_page_is_of_the_latest_run_that_can_be_one(
    warm: Warm, reference: Callable[..., Path], judged: Path, tmp_path: Path
) -> None:
    shutil.copytree(judged / "outputs", tmp_path / "outputs")
    runs = {"old": (), "new": (), "newest": ("model=vae",)}
    for age, (name, overrides) in enumerate(runs.items()):
        folder = tmp_path / "outputs" / name
        shutil.copytree(reference(*overrides), folder)
        os.utime(folder / "checkpoints" / "last.ckpt", (age, age))
    command = warm.start("cvae.demo", before=BEFORE, cwd=tmp_path).wait()
    assert command.status == 0, command.output
    assert command.output.splitlines()[-1] == "open outputs/new/demo.html in a browser"
    assert "passed over outputs/newest: this model ignores the condition" in command.output
    assert (tmp_path / "outputs" / "new" / "demo.html").is_file()


def test_a_training_that_fails_ends_it_with_the_same_status(warm: Warm, tmp_path: Path) -> None:
    before = TRAINING.format(script="raise SystemExit(3)")
    command = warm.start("cvae.demo", cwd=tmp_path, before=before).wait()
    assert command.status == 3
    assert "Traceback" not in command.output


def test_a_signal_lets_the_training_write_its_checkpoint(warm: Warm, tmp_path: Path) -> None:
    command = warm.start("cvae.demo", cwd=tmp_path, before=TRAINING.format(script=PATIENT))
    command.until((tmp_path / "begun").exists)
    command.send(signal.SIGINT)
    assert command.wait().status == 128 + signal.SIGINT
    assert (tmp_path / "ended").exists()
