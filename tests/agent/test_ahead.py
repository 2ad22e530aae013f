"""Work beside the thread that asks for it."""

import subprocess
import sys
import threading

import pytest

from xas_agent.agent.ahead import Ahead

STUCK = """
import threading
from xas_agent.agent.ahead import Ahead
begun = threading.Event()
Ahead("stuck")(lambda: (begun.set(), threading.Event().wait()))
begun.wait()
"""


def test_work_is_done_in_order_and_what_it_raises_is_raised_to_who_asks():
    ahead, done = Ahead("network"), []
    results = [ahead(lambda k=k: done.append(k) or 1 // k) for k in (1, 0, 2)]
    with pytest.raises(ZeroDivisionError):
        results[1]()
    assert (results[2](), results[0](), done) == (0, 1, [1, 0, 2])
    assert ahead(lambda: threading.current_thread().name)() == "network"
    ahead.close()
    assert ahead(lambda: threading.current_thread().name)() == threading.current_thread().name
    ahead.close()


def test_a_thread_that_nobody_closes_ends_with_its_owner():
    ahead = Ahead("forgotten")
    thread = ahead(threading.current_thread)()
    del ahead
    thread.join(10)
    assert not thread.is_alive()


def test_work_that_does_not_return_does_not_keep_the_process():
    assert subprocess.run([sys.executable, "-c", STUCK], timeout=60).returncode == 0
