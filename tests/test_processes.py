"""Several processes train the run that one trains, and end together."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from conftest import TINY
from cvae.training import agent
from folders import differences, load, points, results, step
from warm import PATIENCE, Command, processes_with, signal_at

Begin = Callable[..., Command]
TWO = "trainer=ddp_cpu"
ENDLESS = ("trainer.limit_train_batches=100", "trainer.max_epochs=1000", TWO)


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param((), id="default"),
        # of weights that two densities share, and of an objective with two draws
        pytest.param(("model=gsnn",), id="gsnn", marks=pytest.mark.slow),
        pytest.param(("model.guess=true", "objective=hybrid"), id="guess", marks=pytest.mark.slow),
        pytest.param(("model=deterministic",), id="deterministic", marks=pytest.mark.slow),
    ],
)
def test_fifty_steps_have_the_same_terms_on_two_processes(
    begin: Begin, tmp_path: Path, model: tuple[str, ...]
) -> None:
    assert_same_terms(begin, tmp_path, model)


@pytest.mark.slow
def test_fifty_steps_of_several_annotators_have_the_same_terms_on_two_processes(
    begin: Begin, tmp_path: Path, of_squares: tuple[str, ...]
) -> None:
    assert_same_terms(begin, tmp_path, of_squares)


def assert_same_terms(begin: Begin, tmp_path: Path, model: tuple[str, ...]) -> None:
    """An epoch a step, so that the table has a row a step."""
    steps = ("trainer.limit_train_batches=1", "trainer.max_epochs=50", *model)
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, trainer in ((one, "trainer=cpu"), (two, TWO)):
        command = begin(folder, *steps, trainer).wait()
        assert command.status == 0, command.output
    assert len(rows(one)) == len(rows(two)) == 50
    for first, second in zip(rows(one), rows(two), strict=True):
        for term in ("elbo", "reconstruction", "kl", "loss"):
            # float32 sums in another order, and fifty steps of what comes of it
            assert second[f"train/{term}"] == pytest.approx(first[f"train/{term}"], rel=1e-5)
    assert results(two)["device"].startswith("2 x cpu")
    assert "training on 2 x cpu" in (two / "train.log").read_text()


def test_any_number_of_processes_evaluates_each_example_once(begin: Begin, tmp_path: Path) -> None:
    """The weights stay as they began, so that only the evaluation can differ."""
    whole = ("trainer.limit_val_batches=null", "trainer.limit_test_batches=null")
    still = ("optimizer.lr=0.0", "trainer.limit_train_batches=1", "trainer.max_epochs=1")
    found = []
    for processes in (1, 2, 3):  # three do not divide 10,000
        folder = tmp_path / str(processes)
        options = ("data.batch_size=66", "trainer=ddp_cpu", f"trainer.devices={processes}")
        command = begin(folder, *whole, *still, *options).wait()
        assert command.status == 0, command.output
        found.append(results(folder))
    one = {name: value for name, value in found[0].items() if name.startswith(("val/", "test/"))}
    assert one["val/examples"] == one["test/examples"] == 10_000
    for other in found[1:]:
        # float64 sums; the float32 products of other batch sizes differ in their last digits
        assert {name: other[name] for name in one} == pytest.approx(one, rel=1e-6)


RANKS = """
import json, os, sys
from pathlib import Path
from cvae.run import Run
from cvae.training.fit import fit
from cvae.training.schedules import Constant
Constant.__call__ = lambda _, done: 1.0 if done < 0.35 else -1.0  # the loss is climbed from then on
found = fit(Run(sys.argv[1]))
note = Path(sys.argv[1], "rank" + os.environ["RANK"])
note.write_text(json.dumps([found["best"], found["best_epoch"]]))
"""


@pytest.mark.slow
def test_every_process_sees_the_same_best(begin: Begin, tmp_path: Path) -> None:
    assert begin(tmp_path, "trainer.max_epochs=0").wait().status == 1  # leaves its config
    config = tmp_path / "config.yaml"
    config.write_text(
        config.read_text()
        .replace("max_epochs: 0", "max_epochs: 3")
        .replace("devices: 1", "devices: 2")
        .replace("strategy: auto", "strategy: ddp")
    )
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *torchrun, script, tmp_path], env=environment, check=True)
    best = max([row["val/elbo"], row["epoch"]] for row in rows(tmp_path))
    assert best[1] == 1
    for rank in ("rank0", "rank1"):
        assert json.loads((tmp_path / rank).read_text()) == best


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_stopped_processes_end_together_and_go_on_together(
    begin: Begin, resume: Begin, tmp_path: Path, signum: signal.Signals
) -> None:
    command = begin(tmp_path, *ENDLESS)
    command.until((tmp_path / "checkpoints" / "last.ckpt").exists)
    started = time.monotonic()
    command.send(signum)
    assert command.wait().status == 128 + signum
    # torchrun kills after thirty seconds what does not end by itself
    assert time.monotonic() - started < 25
    assert f"interrupted by {signum.name}: python -m cvae.resume {tmp_path}" in command.error
    assert not processes_with(str(tmp_path))
    epochs = step(tmp_path) // 100 + 1
    assert resume(tmp_path, f"trainer.max_epochs={epochs}").status == 0
    whole = tmp_path / "whole"
    assert begin(whole, *ENDLESS, f"trainer.max_epochs={epochs}").wait().status == 0
    assert differences(whole, tmp_path) == []
    assert points(tmp_path) == points(whole)


@pytest.mark.slow
def test_a_run_that_one_process_began_goes_on_the_same_on_two(
    begin: Begin, resume: Begin, reference: Callable[..., Path], tmp_path: Path
) -> None:
    """Stopped in the middle of an epoch, whose means are then of steps of both kinds."""
    stop = signal_at("Recorder.on_train_batch_end", signal.SIGTERM, 30)
    assert begin(tmp_path, before=stop).wait().status == 128 + signal.SIGTERM
    assert step(tmp_path) == 30
    # the limits count batches of each process: one of each of two holds what two of one do
    limits = ("trainer.limit_val_batches=1", "trainer.limit_test_batches=1")
    command = resume(tmp_path, "trainer.devices=2", "trainer.strategy=ddp", *limits)
    assert command.status == 0, command.output
    whole = reference()
    assert len(rows(tmp_path)) == len(rows(whole)) == 3
    for row, expected in zip(rows(tmp_path), rows(whole), strict=True):
        # float32 sums in another order, and thirty steps of what comes of it
        assert row == pytest.approx(expected, rel=1e-5)
    assert results(tmp_path)["device"].startswith("2 x cpu")
    assert results(tmp_path)["test/elbo"] == pytest.approx(results(whole)["test/elbo"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_the_death_of_one_process_ends_all_with_a_line(
    begin: Begin, tmp_path: Path, rank: int
) -> None:
    command = begin(tmp_path, *ENDLESS)
    command.until((tmp_path / "checkpoints" / "last.ckpt").exists)
    (agent,) = processes_with(f"cvae.training.agent 2 {tmp_path}")
    os.kill(agent, signal.SIGSTOP)  # it looks when the other has told of its lost connection
    os.kill(processes_with(f"cvae.training.worker {tmp_path}")[rank], signal.SIGKILL)
    command.until(lambda: all(state.startswith("Z") for state in states_below(agent)))
    time.sleep(1)  # its clock is one of whole seconds
    os.kill(agent, signal.SIGCONT)
    assert command.wait().status == 1
    assert "of 2 ended: Signal 9 (SIGKILL)" in command.error
    assert not processes_with(str(tmp_path))
    load(tmp_path / "checkpoints" / "last.ckpt")


@pytest.mark.slow
def test_a_mistake_that_only_the_processes_find_is_told_once(begin: Begin, tmp_path: Path) -> None:
    command = begin(tmp_path, TWO, "optimizer.lr=1e30").wait()
    assert command.status == 1
    assert "training diverged in epoch 1, step" in command.error


POISONED = """
import os
from cvae.objectives import BetaElbo

class Poisoned(BetaElbo):
    def __call__(self, model, x, y, noise, epoch):
        terms = super().__call__(model, x, y, noise, epoch)
        broken = os.environ["RANK"] == "1" and epoch == 1.5
        return terms._replace(loss=terms.loss * float("nan")) if broken else terms
"""


@pytest.mark.slow
def test_a_divergence_of_one_process_alone_ends_all_with_a_line(
    begin: Begin, tmp_path: Path
) -> None:
    code, folder = tmp_path / "code", tmp_path / "run"
    code.mkdir()
    (code / "poisoned.py").write_text(POISONED)
    before = f"import sys; sys.path.insert(0, {str(code)!r})"
    words = (TWO, "allow=poisoned", "objective._target_=poisoned.Poisoned")
    command = begin(folder, *words, before=before, PYTHONPATH=str(code)).wait()
    assert command.status == 1
    assert "training diverged in epoch 2, step 31: loss not finite" in command.error
    assert step(folder) == 20


@pytest.mark.slow
def test_when_the_parent_is_killed_its_processes_end(begin: Begin, tmp_path: Path) -> None:
    command = begin(tmp_path, *ENDLESS)
    command.until((tmp_path / "checkpoints" / "last.ckpt").exists)
    command.send(signal.SIGKILL)
    command.wait()
    end = time.monotonic() + PATIENCE
    while processes_with(str(tmp_path)):
        assert time.monotonic() < end
        time.sleep(0.1)
    load(tmp_path / "checkpoints" / "last.ckpt")


def states_below(pid: int) -> list[str]:
    """Of a process's children, as ps has them: Z is one that has ended."""
    listing = ["ps", "--ppid", str(pid), "-o", "stat="]
    return subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.slow
def test_two_agents_of_torchrun_train_one_run_together(mnist_root: str, tmp_path: Path) -> None:
    """As two machines would, but that the network between them is this machine's own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    torchrun += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=both"]
    nodes = ["trainer=multi_node", "trainer.accelerator=cpu", "trainer.devices=1"]
    words = [*nodes, *TINY, f"data.root={mnist_root}", "name=two"]
    command = [sys.executable, *torchrun, "-m", "cvae.train", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    agents = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [agent.communicate(timeout=300)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], told
    found = results(tmp_path / "outputs" / "two" / "both")
    assert found["device"].startswith("2 x cpu")
    assert sum(text.count("folder: ") for text in told) == 1


def test_where_the_line_cannot_be_written_the_processes_failure_is_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = ProcessFailure(local_rank=1, pid=1, exitcode=3, error_file="")

    def fail(_: object) -> None:
        raise ChildFailedError("worker", {1: failure})

    monkeypatch.setattr(torchrun, "run", fail)
    monkeypatch.setattr(sys, "argv", ["agent", "2", str(tmp_path), "{}"])
    (tmp_path / "failure.txt").symlink_to("/dev/full")
    with pytest.raises(SystemExit) as ended:
        agent.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "process 2 of 2 ended: exit status 3\n"


SIGNALLED = """
import os, signal, time
from cvae.objectives import BetaElbo

class Signalled(BetaElbo):
    def __call__(self, model, x, y, noise, epoch):
        if epoch == 1.5 and os.environ["RANK"] == "1" and "COMMAND" in os.environ:
            os.kill(int(os.environ["COMMAND"]), signal.SIGTERM)
            time.sleep(2)  # until it has come back to all processes, in the middle of this step
        return super().__call__(model, x, y, noise, epoch)
"""


@pytest.mark.slow
def test_processes_that_are_stopped_within_an_epoch_go_on_within_it(
    begin: Begin, resume: Begin, tmp_path: Path
) -> None:
    code, folder, whole = (tmp_path / name for name in ("code", "run", "whole"))
    code.mkdir()
    (code / "signalled.py").write_text(SIGNALLED)
    before = f"import os, sys; sys.path.insert(0, {str(code)!r})"
    mine = f"{before}; os.environ['COMMAND'] = str(os.getpid())"
    words = (TWO, "allow=signalled", "objective._target_=signalled.Signalled")
    command = begin(folder, *words, before=mine, PYTHONPATH=str(code)).wait()
    assert command.status == 128 + signal.SIGTERM, command.output
    assert step(folder) == 31, "the second epoch is of the steps 21 to 40"
    resumed = resume(folder, "--allow", "signalled", before=before, PYTHONPATH=str(code))
    assert resumed.status == 0, resumed.output
    assert begin(whole, *words, before=before, PYTHONPATH=str(code)).wait().status == 0
    assert differences(whole, folder) == []
    assert points(folder) == points(whole)


@pytest.mark.parametrize("said", ["cannot join current thread", "something else"])
def test_of_errors_that_nobody_can_catch_torchruns_timer_alone_is_not_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    class Dropped:
        def __del__(self) -> None:
            raise RuntimeError(said)

    monkeypatch.setattr(sys, "unraisablehook", agent._unraisable)
    Dropped()
    assert (said in capsys.readouterr().err) == (said == "something else")
