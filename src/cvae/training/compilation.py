"""`compile=true`: an objective under `torch.compile`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.distributions import Normal, kl_divergence

from cvae.errors import UserError
from cvae.objectives import Objective, Terms


def compile_objective(objective: Objective) -> Callable[..., Terms]:
    """The objective's call as one compiled graph, the model included."""
    # torch looks its formula up once and remembers it; the search itself cannot be compiled
    kl_divergence(Normal(0.0, 1.0), Normal(0.0, 1.0))
    compiled: Callable[..., Terms] = torch.compile(objective.__call__)
    return compiled


@contextmanager
def compiler_errors() -> Iterator[None]:
    """Say in one line why compiling does not work here.

    Raises:
        UserError: there is no C++ compiler, or torch cannot use it.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"compile=true does not work here ({reason}): leave it out") from error
