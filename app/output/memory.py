"""The memory of a process that runs for weeks."""

import ctypes
import gc
import sys
from contextlib import suppress


def give_back_memory() -> None:
    """Return what this process has freed to the system, which takes some 5 ms.

    After peaks, glibc keeps tens of MB between the blocks that are in use, so that the process seems to grow.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def keep_what_exists() -> None:
    """Exempt all present objects from Python's garbage collection, which takes some 0.1 s.

    Modules and models are hundreds of thousands of objects that stay until the end. Each full collection would visit
    them, while frames wait.
    """
    gc.collect()
    gc.freeze()
