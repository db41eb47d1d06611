import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch

import cvae  # noqa: F401  before torchmetrics and lightning, which need its torchvision
from ambiguous import SIDE, squares
from cvae.config import plain
from cvae.data.source import MNIST, Arrays
from cvae.evaluation.judge import Judge
from cvae.evaluation.report import table
from cvae.run import Run
from cvae.train import CONF
from cvae.training.fit import fit
from short_judge import short_judge_of
from warm import Command, Warm

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

TINY = (
    "experiment=smoke",
    "schedule=constant",  # a longer run then begins as a shorter one does
    "trainer.max_epochs=3",
    "trainer.enable_progress_bar=false",
)
SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "network.hidden=[16]")
FITTED = ("optimizer.lr=1e-2", "trainer.enable_progress_bar=false")  # to squares
FEW = ("--num-samples", "10")
REPOSITORY = Path(__file__).resolve().parents[1]


def last_of_each(words: Iterable[str]) -> list[str]:
    """Each key's last override."""
    return list({word.partition("=")[0]: word for word in words}.values())


def trained(folder: Path, config: dict[str, Any]) -> Run:
    """A run trained here, in this process."""
    run = Run(folder, config)
    run.begin()
    torch.manual_seed(0)
    fit(run)
    return run


@pytest.fixture(scope="session")
def mnist_root() -> str:
    """The absolute folder of MNIST's official files, fetched when missing; for `data.root=…`."""
    source = MNIST()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        source.prepare(None)
        folder = source.folder(None).resolve()
    return str(folder)


@pytest.fixture(scope="session")
def compose() -> Callable[..., dict[str, Any]]:
    """Composes conf/ with overrides into what a run's folder would hold."""

    def composed(*overrides: str) -> dict[str, Any]:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):  # global: not kept open
            config = hydra.compose("train", overrides=["name=test", *overrides])
        values = plain(config)
        values.pop("allow")  # as the command does
        return values

    return composed


@pytest.fixture(scope="session")
def train(mnist_root: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m cvae.train` with overrides, and environment variables as keywords."""

    def run(*overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cvae.train", *overrides],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Starts commands in a moment; see warm.py."""
    starter = Warm(tmp_path_factory.mktemp("outputs"))
    yield starter
    starter.close()


@pytest.fixture(scope="session")
def begin(warm: Warm, mnist_root: str) -> Callable[..., Command]:
    """Starts the training of a tiny net in a folder: twenty steps an epoch, three epochs."""

    def start(folder: Path, *overrides: str, **options: Any) -> Command:
        arguments = (*TINY, f"data.root={mnist_root}", *overrides, f"hydra.run.dir={folder}")
        return warm.start("cvae.train", *arguments, **options)

    return start


@pytest.fixture(scope="session")
def sweep(warm: Warm, mnist_root: str) -> Callable[..., Command]:
    """Starts a sweep of tiny runs in a folder."""

    def start(folder: Path, *overrides: str, **options: Any) -> Command:
        words = (
            *last_of_each((*TINY, *overrides)),
            f"data.root={mnist_root}",
            f"hydra.sweep.dir={folder}",
        )
        return warm.start("cvae.train", "-m", *words, **options)

    return start


@pytest.fixture(scope="session")
def resume(warm: Warm) -> Callable[..., Command]:
    """Resumes the run in a folder and waits, unless told not to, until that has ended."""

    def run(folder: Path | str, *changes: str, wait: bool = True, **options: Any) -> Command:
        command = warm.start("cvae.resume", str(folder), *changes, **options)
        return command.wait() if wait else command

    return run


@pytest.fixture(scope="session")
def reference(
    begin: Callable[..., Command], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """The folder of a run that nothing interrupted; trained once for all tests that ask for it."""
    folders: dict[tuple[str, ...], Path] = {}

    def trained(*overrides: str) -> Path:
        if overrides not in folders:
            folder = tmp_path_factory.mktemp("reference")
            command = begin(folder, *overrides).wait()
            assert command.status == 0, command.output
            folders[overrides] = folder
        return folders[overrides]

    return trained


@pytest.fixture(scope="session")
def of_squares(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The words of a tiny model of squares that two annotators drew, ten steps an epoch."""
    folder = tmp_path_factory.mktemp("squares")
    for seed, (split, count) in enumerate((("train", 400), ("val", 60), ("test", 120))):
        np.savez(folder / f"{split}.npz", **squares(count, seed))
    data = ("data=references", f"data.root={folder}", f"data.view.shape=[1,{SIDE},{SIDE}]")
    network = ("network.channels=[8,8]", "network.hidden=[16]", "model.latent_dim=3")
    return "model=probabilistic_unet", *data, "data.batch_size=40", *network


@pytest.fixture(scope="session")
def squares_run(
    compose: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
    of_squares: tuple[str, ...],
) -> Run:
    """A model of the squares that has learnt both annotators."""
    return trained(
        tmp_path_factory.mktemp("run"), compose(*of_squares, *FITTED, "trainer.max_epochs=30")
    )


@pytest.fixture(scope="session")
def without_z(
    compose: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
    of_squares: tuple[str, ...],
    warm: Warm,
) -> Run:
    """A network of the squares with one answer, evaluated as well."""
    words = [word for word in of_squares if not word.startswith("model")]
    model = ("model=deterministic", "network=unet")
    config = compose(*words, *model, *FITTED, "trainer.max_epochs=15")
    run = trained(tmp_path_factory.mktemp("baseline"), config)
    assert warm.start("cvae.evaluate", str(run.folder), *FEW).wait().status == 0
    return run


@pytest.fixture(scope="session")
def evaluated(squares_run: Run, without_z: Run, warm: Warm) -> dict[str, Any]:
    """What the evaluation of the model of the squares says, beside the network with one answer."""
    baseline = ("--baseline", str(without_z.folder))
    command = warm.start("cvae.evaluate", str(squares_run.folder), *FEW, *baseline).wait()
    assert command.status == 0, command.output
    results: dict[str, Any] = json.loads(squares_run.evaluation().read_text())
    assert table(results) in command.output
    return results


@pytest.fixture(scope="session")
def arrays(mnist_root: str) -> Arrays:
    """MNIST in memory."""
    return MNIST().load(mnist_root)


@pytest.fixture(scope="session")
def judged(arrays: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to start commands in that ask for the short judge: it keeps one."""
    folder = tmp_path_factory.mktemp("judged")
    short_judge_of("mnist", arrays, folder / "outputs")
    return folder


@pytest.fixture
def judge(judged: Path, arrays: Arrays) -> Judge:
    """The short judge, read from its file."""
    return short_judge_of("mnist", arrays, judged / "outputs")
