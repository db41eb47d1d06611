"""What stands for a mistake that the user can mend, and for the user's wish to stop."""

import signal
from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can mend; the message is one line that says what to change."""


def unknown(given: str, name: str, known: Iterable[object]) -> UserError:
    """The mistake of a key or a choice that does not exist.

    Args:
        given: as the user gave it, with its place: `model=vea`, `model.latent_dims`.
        name: the part of it that does not exist.
        known: the names that do.
    """
    names = sorted(str(other) for other in known if not str(other).startswith("_"))
    nearest = get_close_matches(name, names, n=1)
    there = f"is not one of {', '.join(names)}" if names else "does not exist"
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return UserError(f"{given}: '{name}' {there}{hint}")


class Interrupted(BaseException):
    """A signal asked the program to end; as with KeyboardInterrupt, only the command catches it.

    Args:
        signum: the signal.
        hint: what the user can do next.
    """

    def __init__(self, signum: int, hint: str = "") -> None:
        name = signal.Signals(signum).name
        super().__init__(f"interrupted by {name}: {hint}" if hint else f"interrupted by {name}")
        self.signum = signum
