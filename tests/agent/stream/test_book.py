"""The order of the book's documents, for any disorder, repetition and loss, and the book's limits."""

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import event_model
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xas_agent.agent.fields.settings import FieldSettings
from xas_agent.agent.stream import held
from xas_agent.agent.stream.book import Book, Entry
from xas_agent.agent.stream.deadlines import PATIENCE_DOCUMENTS, PATIENCE_S
from xas_agent.agent.stream.held import MAX_HELD_DOCUMENTS
from xas_agent.agent.stream.runs import MAX_OPEN_RUNS
from xas_agent.agent.types import size_of
from xas_agent.agent.types.frame import Document, Received, SetAside
from xas_agent.agent.types.reasons import Reason
from xas_agent.agent.types.run import RunDocument

NUMBER: Any = {"source": "sim", "dtype": "number", "shape": []}
STREAMED: Any = {"source": "sim", "dtype": "array", "shape": [3], "external": "STREAM:"}


def run(*events: int, paged: bool = False, size: int = 1, stop: bool = True, **metadata: Any) -> list[Document]:
    """Return the documents of a run with these numbers of Events in its streams."""
    made = event_model.compose_run(metadata=metadata, validate=False)
    docs: list[Any] = [("start", made.start_doc)]
    for k, count in enumerate(events):
        stream = made.compose_descriptor(name=f"s{k}", data_keys={"energy": NUMBER}, validate=False)
        data = {"energy": np.ones(size)}
        given = [stream.compose_event(data=data, timestamps={"energy": 0.0}, validate=False) for _ in range(count)]
        pages = [("event_page", event_model.pack_event_page(*given))] if given else []
        docs += [("descriptor", stream.descriptor_doc), *(pages if paged else [("event", e) for e in given])]
    return docs + ([("stop", made.compose_stop())] if stop else [])


def entries(docs: Sequence[Document], book: Book | None = None, at: float = 0.0) -> list[Entry]:
    book = book or Book(FieldSettings())
    return [entry for name, doc in docs for entry in book(Received(name, doc, at))]


def names(found: Sequence[Entry]) -> list[str]:
    return [entry.name if isinstance(entry, RunDocument) else entry.reason for entry in found]


def check_order(found: Sequence[Entry]) -> dict[str, list[RunDocument]]:
    """Check that runs begin with one start, end with at most one stop, and have each descriptor before its Events."""
    runs: dict[str, list[RunDocument]] = {}
    for entry in found:
        if isinstance(entry, RunDocument):
            runs.setdefault(entry.run.uid, []).append(entry)
    for documents in runs.values():
        kinds = [d.name for d in documents]
        assert kinds[0] == "start"
        assert kinds.count("start") == 1
        assert "stop" not in kinds[:-1]
        described: set[str] = set()
        for document in documents:
            if document.name == "descriptor":
                assert document.doc["uid"] not in described
                described.add(document.doc["uid"])
            elif document.name == "event":
                assert document.doc["descriptor"] in described
    return runs


SHAPES = st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=3), st.booleans()), min_size=1, max_size=3)


@settings(max_examples=200, deadline=None)
@given(shapes=SHAPES, repeat=st.booleans(), seed=st.integers(0, 2**32))
def test_any_disorder_is_ordered_without_loss(shapes: list[tuple[list[int], bool]], repeat: bool, seed: int) -> None:
    rng = random.Random(seed)
    runs = [run(*events, paged=paged) for events, paged in shapes]
    docs = [d for r in runs for d in r for _ in range(1 + (repeat and rng.random() < 0.3))]
    rng.shuffle(docs)
    book = Book(FieldSettings())
    found = entries(docs, book)
    assert not [entry for entry in found if isinstance(entry, SetAside)]
    assert not book.waiting
    ordered = check_order(found)
    for (events, _), made in zip(shapes, runs, strict=True):
        documents = ordered[made[0][1]["uid"]]
        seqs = {(d.doc["descriptor"], d.doc["seq_num"]) for d in documents if d.name == "event"}
        assert len(seqs) == sum(events)
        assert documents[-1].doc == made[-1][1]
    assert not book.finish()


@settings(max_examples=200, deadline=None)
@given(shapes=SHAPES, kept=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_loss_is_reported_and_the_rest_stays_in_order(
    shapes: list[tuple[list[int], bool]], kept: float, seed: int
) -> None:
    rng = random.Random(seed)
    docs = [d for events, paged in shapes for d in run(*events, paged=paged)]
    rng.shuffle(docs)
    docs = [d for d in docs if rng.random() < kept]
    book = Book(FieldSettings())
    found = entries(docs, book)
    found += book.finish()
    ordered = check_order(found)
    assert all(documents[-1].name == "stop" for documents in ordered.values())
    assert (book._held.count, book._held.bytes, book._runs.open, book.waiting) == (0, 0, {}, False)
    described = {doc["uid"] for name, doc in docs if name == "descriptor"}
    unread = [d for n, d in docs if n in ("event", "event_page") and d["descriptor"] not in described]
    reasons = Counter(entry.reason for entry in found if isinstance(entry, SetAside))
    assert set(reasons) <= {Reason.JOINED_LATE, Reason.DESCRIPTOR_NEVER_CAME, Reason.EVENTS_LOST}
    assert bool(unread) <= bool(reasons), "lost descriptors are reported"


@settings(max_examples=50, deadline=None)
@given(events=st.integers(1, 30), most=st.integers(1000, 100_000), seed=st.integers(0, 99))
def test_held_documents_are_limited_in_bytes(events: int, most: int, seed: int) -> None:
    docs = run(events, events, size=1000)
    random.Random(seed).shuffle(docs)
    book = Book(FieldSettings())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held, "MAX_HELD_BYTES", most)
        found: list[Entry] = []
        for document in docs:
            found += entries([document], book)
            assert book._held.bytes <= most
            waiting = [*book._orphans.values(), *(r.held for r in book._runs.open.values())]
            assert book._held.bytes == sum(size_of(d.doc) for some in waiting for d, _ in some)
        found += book.finish()
    given = names(found).count("event")
    refused = names(found).count(Reason.TOO_MANY_HELD_BACK)
    assert (given < 2 * events) <= (refused > 0)
    assert book._held.count == book._held.bytes == 0


def test_held_documents_are_limited_in_number() -> None:
    docs = run(MAX_HELD_DOCUMENTS + 10)
    found = entries([d for d in docs if d[0] == "event"][: PATIENCE_DOCUMENTS - 1])
    assert not found
    page = event_model.pack_event_page(*(doc for name, doc in docs if name == "event"))  # type: ignore[arg-type]
    found = entries([("event_page", dict(page))])
    assert names(found) == [Reason.TOO_MANY_HELD_BACK]
    assert f"{MAX_HELD_DOCUMENTS} documents" in found[0].detail  # type: ignore[union-attr]


def test_what_cannot_be_held_back_is_counted() -> None:
    docs, book = run(MAX_HELD_DOCUMENTS + 10), Book(FieldSettings())
    page = event_model.pack_event_page(*(doc for name, doc in docs if name == "event"))  # type: ignore[arg-type]
    found = entries([("event_page", dict(page))], book) + book.finish()
    refused = [e.count for e in found if isinstance(e, SetAside) and e.reason == Reason.TOO_MANY_HELD_BACK]
    assert refused == [10]


def test_finished_run_is_remembered() -> None:
    docs, book = run(3), Book(FieldSettings())
    lost = docs.pop(3)
    assert names(entries(docs, book)) == ["start", "descriptor", "event", "event"]
    assert names(book.settle()) == ["stop"]
    assert entries(docs * 2, book) == []
    (late,) = entries([lost, lost], book)
    assert isinstance(late, SetAside)
    assert (late.reason, late.run_uid) == (Reason.LATE, docs[0][1]["uid"])


def test_late_events_of_a_run_are_counted() -> None:
    docs, book = run(10), Book(FieldSettings())
    late = docs[3:9]
    entries([d for d in docs if d not in late], book)
    assert names(book.settle()) == ["stop"]
    (first,) = entries(late[:3], book, at=100.0)
    assert not entries(late[3:], book, at=100.0 + 0.9 * PATIENCE_S)
    (further,) = book.poll(100.0 + PATIENCE_S)
    assert isinstance(first, SetAside)
    assert isinstance(further, SetAside)
    assert (first.count, further.reason, further.count) == (1, Reason.LATE, 5)
    assert not book.finish()


def test_events_after_their_run_under_the_numbers_of_earlier_ones_are_counted() -> None:
    docs, book = run(4), Book(FieldSettings())
    again: list[Any] = [(name, {**doc, "uid": f"other {doc['uid']}"}) for name, doc in docs if name == "event"]
    assert entries([*docs, *docs], book)  # repeated by the transport: the same ones
    (late,) = entries(again, book)
    (further,) = book.finish()
    assert isinstance(late, SetAside)
    assert isinstance(further, SetAside)
    assert (late.reason, late.count, further.count) == (Reason.LATE, 1, 3)


def test_stop_waits_for_announced_events_for_a_limited_time() -> None:
    docs, other = run(3), run(0, stop=False)
    lost = docs.pop(3)
    for late, at, ended in (([lost], 0.0, True), ([], 0.9 * PATIENCE_S, False), ([], PATIENCE_S, True)):
        book = Book(FieldSettings())
        assert names(entries(docs, book, at=100.0))[-1] == "event"
        assert book.waiting
        found = entries(late, book, at=100.0) or book.poll(100.0 + at)
        assert (names(found)[-1:] == ["stop"]) is ended
        assert book.waiting is not ended
    book = Book(FieldSettings())
    entries(docs, book)
    assert names(entries(other[:1] * PATIENCE_DOCUMENTS, book)) == ["start", "stop"]
    docs[-1][1]["num_events"] = {"s0": 2, "baseline": 2}
    assert names(entries(docs))[-1] == "stop", "no spectrum needs the baseline"


def test_waiting_run_does_not_delay_another() -> None:
    waits, whole = run(3), run(3)
    del waits[3]
    found = entries([d for pair in itertools.zip_longest(waits, whole) for d in pair if d])
    assert [entry.run.uid for entry in found if isinstance(entry, RunDocument) and entry.name == "stop"] == [
        whole[0][1]["uid"]
    ]


def test_rows_of_stream_datums_count_as_events() -> None:
    made: Any = event_model.compose_run()
    stream = made.compose_descriptor(name="primary", data_keys={"i0": STREAMED, "it": STREAMED})
    docs: list[Any] = [("start", made.start_doc), ("descriptor", stream.descriptor_doc)]
    for key in ("i0", "it"):
        resource = made.compose_stream_resource(
            mimetype="application/x-hdf5", uri="file://localhost/a.h5", data_key=key, parameters={}
        )
        docs.append(("stream_resource", resource.stream_resource_doc))
        for k in range(2):
            indices: Any = {"start": 2 * k, "stop": 2 * k + 2}
            docs.append(("stream_datum", resource.compose_stream_datum(indices, indices, stream.descriptor_doc)))
    stop = {"uid": "stop", "time": 0.0, "run_start": made.start_doc["uid"], "exit_status": "success"}
    docs.append(("stop", {**stop, "num_events": {"primary": 4}}))
    found = entries(docs)
    assert names(found)[-1] == "stop"
    assert names(found).count("stream_datum") == 4
    last = docs.pop(-2)
    book = Book(FieldSettings())
    assert "stop" not in names(entries(docs + docs, book))
    assert names(entries([last], book)) == ["stream_datum", "stop"]


def test_pages_are_unpacked() -> None:
    paged, single = run(4, paged=True), run(4)
    assert names(entries(paged)) == names(entries(single))
    datums: Any = {"resource": "r", "datum_id": ["a", "b"], "datum_kwargs": {"n": [1, 2]}}
    found = entries([("datum_page", datums)])
    assert names(found) == ["datum", "datum"]
    assert [entry.doc["datum_id"] for entry in found if isinstance(entry, RunDocument)] == ["a", "b"]
    paged[2][1]["seq_num"].pop()
    (aside,) = entries(paged[:3])[2:]
    assert isinstance(aside, SetAside)
    assert (aside.reason, aside.uid) == (Reason.MALFORMED_DOCUMENT, "")
    assert aside.detail.endswith("different lengths: uid 4, time 4, seq_num 3, energy 4")


def test_properties_of_a_run_are_decided_once() -> None:
    fields = FieldSettings(edge="K")
    for metadata, watched, sample in (
        ({"sample_uid": "s"}, True, "s"),
        ({"sample_uid": "s", "plan_name": "align_mirror"}, False, "s"),
        ({"sample_uid": "s", "xas_agent": True}, False, None),
    ):
        docs = run(2, element="Ni", **metadata)
        found = entries(docs, Book(fields))
        assert len(found) == len(docs)
        infos = {id(entry.run) for entry in found if isinstance(entry, RunDocument)}
        assert len(infos) == 1
        info = next(entry.run for entry in found if isinstance(entry, RunDocument))
        assert (info.watched, info.element, info.edge, info.sample_uid) == (watched, "Ni", "K", sample)


def test_missing_start_is_returned_empty() -> None:
    docs, book = run(2, sample_uid="s"), Book(FieldSettings(element="Co"))
    assert entries(docs[1:-1], book) == []
    aside, start, *rest = book.settle()
    assert names([aside, start, *rest]) == [Reason.JOINED_LATE, "start", "descriptor", "event", "event"]
    assert isinstance(start, RunDocument)
    assert (start.doc, start.run.joined_late, start.run.element) == ({}, True, "Co")
    (late,) = entries(docs[:1], book)
    assert isinstance(late, RunDocument)
    assert (late.run.start, late.run.sample_uid, late.run.joined_late) == (docs[0][1], "s", True)


def test_runs_left_open_end_without_a_stop() -> None:
    runs = [run(1, stop=False) for _ in range(MAX_OPEN_RUNS + 2)]
    stops = [e for e in entries([d for r in runs for d in r]) if isinstance(e, RunDocument) and e.name == "stop"]
    assert [(e.run.uid, e.doc) for e in stops] == [(r[0][1]["uid"], {}) for r in runs[:2]]
