"""Commands started in a moment: forks of a process that has imported torch and Lightning already.

What a fork runs is what `python -m MODULE ARGUMENT…` would, with signals, exit status and all.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
SLOW_TO_IMPORT = (
    "cvae.training.launch",
    "cvae.training.callbacks",
    "hydra.main",
    "tensorboard.plugins.hparams.summary_v2",
    "torch.profiler",
)
PATIENCE = 120  # seconds that anything may take on a busy machine


class Command:
    """A command that runs, or has run.

    Attributes:
        pid: of its process.
        status: its exit status, -N if signal N killed it; None while it runs.
    """

    def __init__(self, warm: "Warm", pid: int, output: Path) -> None:
        self.warm, self.pid, self._output = warm, pid, output
        self.status: int | None = None

    @property
    def output(self) -> str:
        """Standard output and standard error so far."""
        return self._output.read_text()

    @property
    def error(self) -> str:
        """The line of the error that it ended with: the last, the only one, with no traceback."""
        *others, last = self.output.strip().splitlines()
        assert "Traceback" not in self.output, self.output
        assert "[ERROR]" in last, self.output
        assert not any("[ERROR]" in line for line in others), self.output
        return last

    def send(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def wait(self) -> "Command":
        """Wait until it has ended."""
        end = time.monotonic() + PATIENCE
        while not self.ended():
            assert time.monotonic() < end, f"still running: {self.output}"
            time.sleep(0.01)
        return self

    def ended(self) -> bool:
        if self.status is None:
            self.status = self.warm.ask(wait=self.pid)
        return self.status is not None

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, which it has to be before the command ends."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert not self.ended(), f"ended too early: {self.output}"
            assert time.monotonic() < end, f"waited in vain: {self.output}"
            time.sleep(0.001)


class Warm:
    """Starts commands.

    Args:
        outputs: a folder for what they print.
    """

    def __init__(self, outputs: Path) -> None:
        self.outputs, self._started = outputs, 0
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(
        self,
        module: str,
        *arguments: str,
        before: str = "",
        cwd: Path = REPOSITORY,
        **environment: str,
    ) -> Command:
        """Start `python -m MODULE ARGUMENT…`.

        Args:
            module: to run.
            arguments: of the command line.
            before: Python to run first, in the same process: a fault or a signal at a chosen place.
            cwd: where it runs.
            environment: variables on top of this process's.
        """
        self._started += 1
        output = self.outputs / f"{self._started}.txt"
        output.touch()
        pid = self.ask(
            module=module,
            arguments=arguments,
            before=before,
            cwd=str(cwd),
            environment=environment,
            output=str(output),
        )
        return Command(self, pid, output)

    def close(self) -> None:
        self._server.communicate()


def signal_at(place: str, signum: int, at_step: int = 0, times: int = 1) -> str:
    """Python that lets a process signal itself after a method, at a step or the first time."""
    owner, name = place.split(".")
    return f"""
import os
from cvae.training.module import Training
from cvae.training.recorder import Recorder
original = {owner}.{name}
def signalling(self, *arguments, **keywords):
    result = original(self, *arguments, **keywords)
    if {at_step} in (0, self.trainer.global_step):
        for _ in range({times}):
            os.kill(os.getpid(), {int(signum)})
    return result
{owner}.{name} = signalling
"""


def processes_with(text: str) -> list[int]:
    """The running processes whose command line holds the text, the oldest first."""
    listing = subprocess.run(
        ["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in listing.stdout.splitlines() if text in line]


def _serve() -> None:
    for module in SLOW_TO_IMPORT:
        importlib.import_module(module)
    gc.freeze()  # a fork need not look through all of torch for garbage, a second long, as it ends

    for line in sys.stdin:
        request = json.loads(line)
        answer: int | None
        if "wait" in request:
            pid, status = os.waitpid(request["wait"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork() or _run(**request)
        print(json.dumps(answer), flush=True)


def _run(
    module: str,
    arguments: list[str],
    before: str,
    cwd: str,
    environment: dict[str, str],
    output: str,
) -> int:
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.chdir(cwd)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [module, *arguments]
    sys.orig_argv = [sys.executable, "-m", module, *arguments]
    exec(before, {})
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    _serve()
