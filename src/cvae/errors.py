"""What stands for a mistake that the user can mend, and for the user's wish to stop."""

import signal


class UserError(Exception):
    """Something the user can mend; the message is one line that says what to change."""


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
