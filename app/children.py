"""Processes of this package that another process of it starts."""

import os
import sys


def command_of(module: str, *args: object) -> list[str]:
    """Return the command line that runs a module, without the working directory in front of its import path.

    A user's ``numpy.py`` or ``xas_agent.py`` in the folder of a session would be imported otherwise.
    """
    return [sys.executable, "-P", "-m", module, *map(str, args)]


def environment() -> dict[str, str]:
    """Return the environment in which such a command imports from where this process does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
