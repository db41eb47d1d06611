"""A data set's files from the first place that gives them."""

import logging
from collections.abc import Sequence
from typing import Protocol

from cvae.errors import UserError

log = logging.getLogger(__name__)

Files = dict[str, bytes]
TIMEOUT = 5  # seconds after which a place must have answered


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
