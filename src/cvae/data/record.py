"""What is known of a run's data: their name, where they are, and the hash of each file."""

import hashlib
from collections.abc import Mapping
from typing import Any


def hashes(record: Mapping[str, Any]) -> dict[str, str]:
    """The hash of each file."""
    return {name: text for name, text in record.items() if str(text).startswith("sha256:")}


def which_data(record: object) -> str:
    """The name of data and a short hash of their files' hashes, wherever the files are."""
    record = record if isinstance(record, Mapping) else {}
    found = sorted(f"{name} {text}" for name, text in hashes(record).items())
    data = [str(record.get("name", ""))]
    if found:
        data.append(hashlib.sha256("\n".join(found).encode()).hexdigest()[:8])
    return " ".join(data)
