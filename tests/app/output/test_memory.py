"""Memory that is free between blocks in use goes back to the system."""

import gc
import os
import sys
from pathlib import Path

import pytest

from xas_agent.app.output.memory import give_back_memory, keep_what_exists


def occupied_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(
    sys.platform != "linux" or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="needs glibc"
)
def test_freed_memory_goes_back_to_the_system():
    blocks = [bytes(20_000) for _ in range(10_000)]
    kept = blocks[::100]
    del blocks
    before = occupied_mb()
    give_back_memory()
    assert len(kept) == 100
    assert occupied_mb() < before - 100


def test_what_exists_is_left_out_of_garbage_collection():
    before = gc.get_freeze_count()
    kept = [[] for _ in range(1000)]
    try:
        keep_what_exists()
        assert gc.get_freeze_count() >= before + len(kept)
    finally:
        gc.unfreeze()
