"""Short forms of the campaigns under benchmarks/campaigns: their counts, not their speed."""

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGNS = Path(__file__).parents[1] / "benchmarks" / "campaigns"


@pytest.mark.slow
def test_every_frame_of_an_overload_is_answered_or_counted():
    command = [sys.executable, str(CAMPAIGNS / "overload.py"), "--seconds", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines() if len(line.split()) > 1)
    assert int(figures["not accounted for"]) == 0
    assert int(figures["answered"]) > 0
    assert int(figures["left out"]) > 0
