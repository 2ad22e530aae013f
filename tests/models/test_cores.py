"""The number of processors that a process may use."""

import os
import subprocess
import sys

import pytest

from xas_agent.models.cores import core_count


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no CPU affinity")
def test_affinity_is_heeded():
    """Of a process bound to one processor, as a batch system binds its jobs."""
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from xas_agent.models.cores import core_count; print(core_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_there_is_at_least_one():
    assert core_count() >= 1
