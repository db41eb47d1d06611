"""How a command ends."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

from cvae.command import in_one_line

AT_EXIT = """
import atexit, os, signal
from cvae.command import run_command
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
run_command(lambda: None)
"""


LOGGING = """
import logging, sys
from pathlib import Path
from cvae.command import log_to, run_command
def main():
    log_to(Path(sys.argv[1]))
    logging.getLogger().error("a line")
run_command(main)
"""


def test_a_log_that_cannot_be_opened_ends_a_command_with_a_line(tmp_path: Path) -> None:
    (tmp_path / "train.log").mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", LOGGING, tmp_path], capture_output=True, text=True
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"{tmp_path}/train.log: Is a directory" in line


def test_a_full_disk_is_told_what_to_do_about() -> None:
    full = errno.ENOSPC, os.strerror(errno.ENOSPC)
    line = "No space left on device: free some space or choose another folder"
    assert in_one_line(OSError(*full)) == line
    assert in_one_line(OSError(*full, "/run/file")) == f"/run/file: {line}"


def test_a_log_on_a_full_disk_leaves_the_standard_error(tmp_path: Path) -> None:
    (tmp_path / "train.log").symlink_to("/dev/full")
    ended = subprocess.run(
        [sys.executable, "-c", LOGGING, tmp_path], capture_output=True, text=True
    )
    assert ended.returncode == 0
    (line,) = ended.stderr.splitlines()
    assert line.endswith("a line")


def test_a_signal_after_the_end_shows_no_traceback() -> None:
    ended = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGTERM
    assert ended.stderr == ""


THREAD = """
import threading
from cvae.command import run_command
def fail(error):
    raise error
def main():
    for error in (OSError(28, "No space left on device"), ZeroDivisionError("a fault")):
        thread = threading.Thread(target=fail, args=(error,))
        thread.start()
        thread.join()
run_command(main)
"""


def test_a_thread_that_finds_the_disk_full_leaves_that_to_the_main_thread() -> None:
    ended = subprocess.run([sys.executable, "-c", THREAD], capture_output=True, text=True)
    assert "No space left" not in ended.stderr
    assert ended.stderr.count("Traceback") == 1
    assert ended.stderr.endswith("ZeroDivisionError: a fault\n")
