"""Number of processors that this process may use."""

import os


def core_count() -> int:
    """Return the number of processors that the process's CPU affinity allows, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
