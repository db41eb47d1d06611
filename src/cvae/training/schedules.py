"""Learning-rate schedules: functions from the fraction of training done to a factor."""

import math
from typing import Protocol, runtime_checkable

from cvae.ranges import Fraction


@runtime_checkable
class Schedule(Protocol):
    """What the training code asks of a schedule."""

    def __call__(self, done: float) -> float:
        """The learning rate's factor when a fraction of training is done."""
        ...


class Constant:
    """The factor is 1 throughout."""

    def __call__(self, done: float) -> float:
        return 1.0


class Cosine:
    """A linear rise from 0 to 1, then half a cosine down to `final`.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, without restarts.

    Args:
        warmup: fraction of training over which the factor rises.
        final: the factor at the end.
    """

    def __init__(self, warmup: Fraction = 0.0, final: Fraction = 0.0) -> None:
        self.warmup, self.final = warmup, final

    def __call__(self, done: float) -> float:
        if done < self.warmup:
            return done / self.warmup
        angle = math.pi * min(1.0, (done - self.warmup) / (1 - self.warmup))
        return self.final + (1 - self.final) * (1 + math.cos(angle)) / 2
