"""Work on parts of the data, a part a core."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


def num_workers(device: torch.device) -> int:
    """How many parts are worked on at a time: on a CPU one a thread."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def in_parallel(
    work: Callable[[int], Result], places: Iterable[int], device: torch.device
) -> Iterator[Result]:
    """The results in order: on a CPU each thread works on a part of its own.

    So all of a part is shared among the cores, and not its large operations alone, and no result
    depends on how many threads there are.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(num_workers(device))
    torch.set_num_threads(1)
    try:
        yield from pool.map(work, places)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
