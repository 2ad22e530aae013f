"""Number of processors that this process may use."""

import os


def core_count() -> int:
    """Return the number of processors that the process's CPU affinity allows, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_threads() -> int:
    """Return the number of CPU threads for serving: half the available cores, at most 4.

    The network is small, and on a shared machine threads that wait for each other take longer than a single one.
    """
    return max(1, min(4, core_count() // 2))
