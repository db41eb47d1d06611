import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from omegaconf import OmegaConf

import cvae  # noqa: F401  before torchmetrics and lightning, which need its torchvision
from cvae.data.source import MNIST
from cvae.train import CONF

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

REPOSITORY = Path(__file__).resolve().parents[1]


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
def compose() -> Iterator[Callable[..., dict[str, Any]]]:
    """Composes conf/ with overrides into what a run's folder would hold."""

    def composed(*overrides: str) -> dict[str, Any]:
        config = hydra.compose("train", overrides=["name=test", *overrides])
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        assert isinstance(plain, dict)
        plain.pop("allow")  # as the command does
        return {str(key): value for key, value in plain.items()}

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield composed


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
