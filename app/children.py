"""Starts processes of this package from another of its processes."""

import os
import sys


def command_of(module: str, *args: object) -> list[str]:
    """Return the command line that runs a module, without the working directory on its import path.

    Otherwise a user's ``numpy.py`` or ``xas_agent.py`` in the folder of a session would be imported.
    """
    return [sys.executable, "-P", "-m", module, *map(str, args)]


def environment() -> dict[str, str]:
    """Return the environment with which such a command imports from the same places as this process."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
