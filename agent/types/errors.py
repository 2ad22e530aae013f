"""What a user can mend."""


class InputError(ValueError):
    """Something that was given cannot be used; the message says what was found and what was expected.

    The command prints it as one line and exits with 2.
    """
