"""EventPages of the agent: the Events that they replace, in their order."""

from typing import Any

import event_model
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_agent_run import DECISION, ESTIMATE, QUANTITIES, Run, check, frame

from xas_agent.agent.publish import PAGES_ABOVE_HZ, come_in_pages, events_of
from xas_agent.agent.types import Document, Frame, Lines, Reason, SetAside, nodes

NOTE = SetAside("watched", "n1", 110.0, Reason.NAN_IN_DATA, "", 3)
LINES = Lines(*(np.zeros(len(nodes(5))),) * 2, e0_ev=7720.0, foil_e0_ev=7709.0)
LINE = np.linspace(0, 1, 5)


def unpacked(documents: list[Document]) -> list[Document]:
    """Documents with the Events of their pages."""
    found: list[Document] = []
    for name, doc in documents:
        found += [("event", e) for e in events_of(doc)] if name == "event_page" else [(name, doc)]
    return found


def by_stream(documents: list[Document]) -> dict[str, list[Any]]:
    """Events without their random uids, in their order, with the layout of their Descriptor."""
    described = {doc["uid"]: doc for name, doc in documents if name == "descriptor"}
    found: dict[str, list[Any]] = {}
    for name, doc in documents:
        if name == "event":
            descriptor = described[doc["descriptor"]]
            values = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in doc["data"].items()}
            found.setdefault(descriptor["name"], []).append((doc["seq_num"], doc["time"], values))
    return found


@given(st.lists(st.sampled_from(["frame", "voltage", "without spectrum", "note", "decision", "flush"]), max_size=12))
def test_a_page_holds_the_events_that_it_replaces(steps):
    paged, single = Run(), Run()
    for n, step in enumerate(steps, 1):
        for run, pages in ((paged.run, True), (single.run, False)):
            if step == "note":
                run.set_aside(NOTE)
            elif step == "decision":
                run.decision(DECISION)
            elif step == "flush":
                run.flush()
            else:
                readings = {"voltage": 3.7 + n} if step == "voltage" else {}
                line = None if step == "without spectrum" else LINE + n
                run.frame(frame(n, 110.0 + n, **readings), QUANTITIES, ESTIMATE, line, 5.0, LINES, paged=pages)
    paged.run.close()
    single.run.close()
    check(unpacked(paged.documents))
    assert by_stream(unpacked(paged.documents)) == by_stream(single.documents)
    for page in paged.named("event_page"):
        event_model.schema_validators[event_model.DocumentNames.event_page].validate(page)
        theirs = [dict(event) for event in event_model.unpack_event_page(page)]
        assert [e["uid"] for e in theirs] == [e["uid"] for e in events_of(page)]


def test_notes_and_decisions_come_after_the_frames_before_them():
    made = Run()
    for n in (1, 2):
        made.run.frame(frame(n), QUANTITIES, ESTIMATE, LINE, 5.0, paged=True)
    assert not made.named("event_page")
    made.run.decision(DECISION)
    names = [name for name, _ in made.documents]
    assert names == ["start", "descriptor", "descriptor", "descriptor", "event_page", "event_page", "event"]


def test_the_numbers_that_are_remembered_are_those_of_emitted_events():
    made = Run()
    made.run.frame(frame(1), QUANTITIES, ESTIMATE, None, 5.0, paged=True)
    ((_, (counts, _)),) = made.run.memory().items()
    assert counts == {"descriptors": 1}
    assert len(made.named("event_page")) == 1


def arriving(*received: float) -> list[Frame]:
    grid = np.arange(3.0)
    return [Frame(f"f{n}", "r", n, 0.0, grid, grid, received=at) for n, at in enumerate(received)]


@pytest.mark.parametrize(
    ("received", "pages", "expected"),
    [
        ((1.0, 1.0, 1.0), "auto", True),  # of one page
        ((1.0, 1.0 + 0.9 / PAGES_ABOVE_HZ), "auto", True),
        ((1.0, 1.0 + 1.1 / PAGES_ABOVE_HZ), "auto", False),
        ((1.0,), "auto", False),
        ((1.0,), "always", True),
        ((1.0, 1.0), "never", False),
    ],
)
def test_frames_that_come_fast_are_published_together(received, pages, expected):
    assert come_in_pages(arriving(*received), pages) is expected
