"""Errors that a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in the input, the configuration or the environment.

    The message is one line: which file or key, what is wrong, what to do. The command line prints it without a
    traceback and exits with code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
