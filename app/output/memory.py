"""Memory management of a process that runs for weeks."""

import ctypes
import gc
import sys
from contextlib import suppress


def give_back_memory() -> None:
    """Return freed memory of this process to the system, which takes some 5 ms.

    After peaks, glibc retains tens of MB between the blocks in use, so that the process seems to grow.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def keep_what_exists() -> None:
    """Exempt all present objects from Python's garbage collection, which takes some 0.1 s.

    Modules and models consist of hundreds of thousands of permanent objects, which each full collection would visit
    while frames wait.
    """
    gc.collect()
    gc.freeze()
