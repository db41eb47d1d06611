"""The one exception that stands for a mistake the user can mend."""


class UserError(Exception):
    """Something the user can mend; the message is one line that says what to change."""
