"""Errors that a user can correct."""


class InputError(ValueError):
    """An input cannot be used; the message states what was found and what was expected.

    The command line prints the message as one line and exits with code 2.
    """
