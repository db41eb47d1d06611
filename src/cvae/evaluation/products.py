"""How fast a computation's matrix products would be if they were all of it."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from cvae.evaluation.parallel import in_parallel, num_workers

PRODUCTS = (
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.convolution.default,
)
SECONDS = 1.0  # long enough for a clock that has to settle


class Record(TorchDispatchMode):
    """Remembers the matrix products and convolutions that are computed under it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in PRODUCTS:
            self.calls.append((func, args, dict(kwargs or {})))
        return func(*args, **(kwargs or {}))


class Products:
    """The matrix products of one call, to be counted and repeated alone.

    Args:
        call: what computes them.

    Attributes:
        flops: floating-point operations of the products of one call.
    """

    @torch.no_grad()
    def __init__(self, call: Callable[[], object]) -> None:
        with Record() as record:
            call()
        self._calls = record.calls
        with FlopCounterMode(display=False) as counter:
            self._repeat()
        self.flops: int = counter.get_total_flops()

    def rate(self, device: torch.device) -> float:
        """Floating-point operations a second of the products alone, on this device, now.

        Each worker of `in_parallel` repeats them for itself, as there each has parts of its own:
        threads that share every product wait for each other, the more the busier the machine is.
        """
        workers = range(num_workers(device))
        return sum(in_parallel(lambda worker: self._rate_of_one(device), workers, device))

    @torch.no_grad()  # here, as each thread has a mode of its own
    def _rate_of_one(self, device: torch.device) -> float:
        done, started = 0, now(device)
        while (seconds := now(device) - started) < SECONDS or not done:
            self._repeat()
            done += 1
        return done * self.flops / seconds

    def _repeat(self) -> None:
        for func, args, kwargs in self._calls:
            func(*args, **kwargs)


def now(device: torch.device) -> float:
    """The clock once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
