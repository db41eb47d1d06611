"""A web folder that holds a data set's files."""

import hashlib
import threading
import time
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from urllib.error import HTTPError

from cvae.data.fetch import TIMEOUT, Files, UnreachableError

MIN_RATE = 5_000  # bytes a second, that a mirror keeps up once TIMEOUT has passed
MAX_SIZE = 64 * 2**20  # bytes of one file


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
