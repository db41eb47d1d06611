"""How a command ends."""

import signal
import subprocess
import sys

AT_EXIT = """
import atexit, os, signal
from cvae.command import run_command
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
run_command(lambda: None)
"""


def test_a_signal_after_the_end_shows_no_traceback() -> None:
    ended = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGTERM
    assert ended.stderr == ""
