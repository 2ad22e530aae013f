"""The agent's queue: bounds, order and what is dropped."""

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xas_agent.agent.types import size_of
from xas_agent.app.inbox import Inbox

NAMES = st.sampled_from(["start", "descriptor", "event", "event", "event_page", "stop"])
WAIT_S = 30.0


@given(st.lists(st.tuples(NAMES, st.integers(0, 2000), st.booleans()), max_size=60))
def test_the_bounds_hold_and_what_is_not_returned_is_counted(steps):
    inbox, returned, sent, dropped = Inbox(5, 8000), [], 0, 0
    for name, points, take in steps:
        inbox.put(name, {"number": sent, "data": np.zeros(points)})
        sent += 1
        assert len(inbox) <= 10
        assert inbox.bytes <= 2 * 8000 + 16_500  # the last document that finds room may go beyond
        if take:
            returned += inbox.get(0, 2)
    dropped = inbox.take_dropped()
    assert inbox.taken == sent - dropped
    returned += inbox.get(0, sent)
    assert len(returned) == inbox.taken
    assert inbox.bytes == 0
    numbers = [document.doc["number"] for document in returned]
    assert numbers == sorted(numbers)
    assert inbox.take_dropped() == 0


def test_a_full_queue_still_takes_what_a_run_needs():
    inbox = Inbox(2, 1e6)
    for name in ("start", "descriptor", "event", "event", "stop"):
        inbox.put(name, {"name": name})
    assert [document.name for document in inbox.get(0, 10)] == ["start", "descriptor", "stop"]
    assert inbox.take_dropped() == 2


def test_one_document_beyond_the_bound_is_taken_by_an_empty_queue():
    inbox = Inbox(10, 1000)
    for _ in range(2):
        inbox.put("event", {"data": np.zeros(10_000)})
    assert len(inbox) == 1


def test_a_waiting_caller_goes_on_when_there_is_room_or_the_queue_closes():
    inbox = Inbox(1, 1e6)
    sender = threading.Thread(target=lambda: [inbox.put("event", {"n": n}, wait=True) for n in range(5)])
    sender.start()
    received = []
    while len(received) < 3:
        received += [document.doc["n"] for document in inbox.get(WAIT_S, 1)]
    inbox.close()
    sender.join(WAIT_S)
    assert not sender.is_alive()
    assert received == [0, 1, 2]
    assert inbox.take_dropped() == 0


def test_size_follows_the_content():
    floats = [float(n) for n in range(1000)]
    assert 8000 <= size_of({"data": {"It": np.zeros(1000)}}) < 9000
    assert size_of({"data": {"It": floats}}) > 30_000
    assert size_of({"data": {"It": [floats, floats]}}) > 60_000
    assert size_of({"text": "a" * 5000}) > 5000


def test_a_page_counts_as_its_events():
    inbox, page = Inbox(10, 1e6), {"seq_num": [*range(4)], "data": {}}
    for _ in range(4):
        inbox.put("event_page", page)
    assert (len(inbox), inbox.rows) == (3, 12)  # the last document that finds room may go beyond
    assert inbox.take_dropped() == 4
    assert [document.rows for document in inbox.get(0, 5)] == [4, 4]
    assert inbox.rows == 4
    inbox.put("event_page", {"seq_num": 3})  # malformed
    inbox.put("start", {})
    assert [document.rows for document in inbox.get(0, 6)] == [4, 1, 1]
    assert (inbox.rows, inbox.bytes) == (0, 0)
