"""The folder of an agent has an answer to a frame once."""

from typing import Any

import pytest

from xas_agent.agent.types import Document
from xas_agent.app.output.known import Known


def answering(own: str, frames: range, exit_status: str) -> list[Document]:
    """The documents of an agent's run on the run "watched"."""
    start = {"uid": own, "parent_uid": "watched", "xas_agent": {"version": "1"}}
    descriptor = {"uid": f"{own}/descriptors", "run_start": own, "name": "descriptors"}
    events = [
        {"uid": f"{own}/{k}", "descriptor": descriptor["uid"], "data": {"frame_uid": f"frame {k}"}} for k in frames
    ]
    stop = {"uid": f"{own}/stop", "run_start": own, "exit_status": exit_status}
    return [("start", start), ("descriptor", descriptor), *(("event", event) for event in events), ("stop", stop)]


def new(known: Known, documents: list[Document]) -> list[Any]:
    return [doc["uid"] for name, doc in documents if not known(name, doc) and name == "event"]


@pytest.mark.parametrize("after_restart", [False, True])
def test_frames_of_a_run_that_comes_back_are_known(after_restart: bool) -> None:
    known = Known(shared=True, repeated=set())
    before = answering("first", range(3), "abort")
    if after_restart:
        for document in before:
            known.add(document)
    else:
        assert new(known, before) == ["first/0", "first/1", "first/2"]
    assert new(known, answering("second", range(5), "success")) == ["second/3", "second/4"]
    assert new(known, answering("third", range(1), "success")) == ["third/0"]  # nothing of a run that ended is kept


def test_a_run_of_an_agent_that_shares_nothing_may_be_answered_again() -> None:
    known = Known(shared=False, repeated={"second/0"})
    assert len(new(known, answering("first", range(3), "abort"))) == 3
    assert new(known, answering("second", range(3), "success")) == ["second/1", "second/2"]
