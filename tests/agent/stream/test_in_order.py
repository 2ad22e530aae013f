"""Events that are read together, or in pages, give what each gives alone."""

import itertools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import event_model
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xas_agent.agent.fields import FieldSettings
from xas_agent.agent.stream import FrameReader
from xas_agent.agent.stream.book import MAX_SEQ_NUM, Book
from xas_agent.agent.types import Document, Reason, Received, RunDocument

UP = np.linspace(7640.0, 7820.0, 12).tolist()
FIELDS = FieldSettings(min_points=5)
KEYS = {key: {"dtype": "number", "shape": [], "source": "test"} for key in ("energy", "I0", "It", "temperature")}
SPECTRUM_KEY = {"dtype": "array", "shape": [len(UP)], "source": "test"}
Change = Callable[[dict[str, Any]], Any]


def with_data(**values: Any) -> Change:
    return lambda doc: {**doc, "data": {**doc["data"], **values}}


CHANGES: dict[str, Change] = {
    "none": lambda doc: doc,
    "numpy's numbers": lambda doc: {**doc, "data": {key: np.float64(v) for key, v in doc["data"].items()}},
    "arrays of one": lambda doc: {**doc, "data": {key: np.array([v]) for key, v in doc["data"].items()}},
    "an integer": with_data(It=300_000),
    "NaN": with_data(energy=float("nan")),
    "infinite": with_data(energy=float("inf")),
    "no energy": with_data(energy=None),
    "a huge integer": with_data(energy=10**400),
    "a text": with_data(It="broken"),
    "a wrong energy": with_data(energy=9000.0),
    "a dark point": with_data(It=0.0),
    "a text as reading": with_data(temperature="warm"),
    "a spectrum": with_data(It=[1.0, 2.0]),
    "a field is missing": lambda doc: {**doc, "data": {k: v for k, v in doc["data"].items() if k != "It"}},
    "no data": lambda doc: {**doc, "data": {}},
    "data that are none": lambda doc: {**doc, "data": [1, 2]},
    "an odd time": lambda doc: {**doc, "time": "yesterday"},
    "no time": lambda doc: {k: v for k, v in doc.items() if k != "time"},
    "a text as number": lambda doc: {**doc, "seq_num": str(doc["seq_num"])},
    "no number": lambda doc: {k: v for k, v in doc.items() if k != "seq_num"},
    "a negative number": lambda doc: {**doc, "seq_num": -3},
    "too large a number": lambda doc: {**doc, "seq_num": MAX_SEQ_NUM + 1},
    "truth as number": lambda doc: {**doc, "seq_num": True},
    "a number ahead": lambda doc: {**doc, "seq_num": doc["seq_num"] + 70},
    "an old uid": lambda doc: {**doc, "uid": "event 0/0"},
    "an unknown descriptor": lambda doc: {**doc, "descriptor": "none"},
    "an array as descriptor": lambda doc: {**doc, "descriptor": np.zeros(2)},
    "no descriptor": lambda doc: {k: v for k, v in doc.items() if k != "descriptor"},
    "no mapping": lambda doc: ["event"],
}


def scan(n: int, sweeps: int, *, whole: bool = False) -> tuple[list[Document], list[Document], Document]:
    """Documents of a run without external data: its beginning, its Events and its stop.

    If the Events hold whole spectra, there are as many as points else.
    """
    run = event_model.compose_run(metadata={"element": "Co", "edge": "K"}, uid=f"run {n}", time=0.0)
    keys = KEYS | (dict.fromkeys(("energy", "I0", "It"), SPECTRUM_KEY) if whole else {})
    stream = run.compose_descriptor(name="primary", data_keys=keys, uid=f"stream {n}", time=0.0)
    events: list[Document] = []
    for energy in [e for k in range(sweeps) for e in (UP if k % 2 == 0 else UP[::-1])]:
        mu = 0.5 + np.arctan(energy - 7709) / np.pi + 1e-3 * np.sin(len(events))
        data: dict[str, Any] = {"energy": energy, "I0": 1e6 + len(events), "It": 1e6 * float(np.exp(-mu))}
        if whole:
            mu = 0.5 + np.arctan(np.array(UP) - 7709) / np.pi + 1e-3 * np.sin(len(events) + np.arange(len(UP)))
            data = {"energy": np.array(UP), "I0": np.full(len(UP), data["I0"]), "It": 1e6 * np.exp(-mu)}
        data["temperature"] = 300.0
        event = stream.compose_event(
            data=data,
            timestamps=dict.fromkeys(data, 0.0),
            uid=f"event {n}/{len(events)}",
            time=float(len(events)),
            validate=False,
        )
        events.append(("event", dict(event)))
    stop = ("stop", dict(run.compose_stop(uid=f"stop {n}", time=1e6)))
    return [("start", dict(run.start_doc)), ("descriptor", dict(stream.descriptor_doc))], events, stop


def plain(outcome: Any) -> Any:
    """An outcome with all its bits."""
    if isinstance(outcome, RunDocument):
        return outcome.run.uid, outcome.name
    values = {f.name: getattr(outcome, f.name) for f in fields(outcome)}
    return {k: v.tobytes() if isinstance(v, np.ndarray) else str(v) for k, v in values.items()}


def read(reader: FrameReader, documents: list[Received], together: int) -> list[Any]:
    """Outcomes by the number of documents after which they came, if these are read alone or in groups."""
    found: list[Any] = []
    for k in range(0, len(documents), together):
        part = documents[k : k + together]
        counts = 0
        for count, outcomes in reader.read(part) if together > 1 else [(1, reader(part[0]))]:
            counts += count
            found += map(plain, outcomes)
        assert counts == len(part)
    return found + [plain(outcome) for outcome in reader.finish()]


def in_pages(documents: list[Document], rows: int) -> list[Document]:
    """Documents with pages in place of neighbouring Events that a page can hold."""

    def kind(document: Document) -> Any:
        name, doc = document
        if name != "event" or not isinstance(doc, dict) or not isinstance(doc.get("data"), dict):
            return id(doc)
        whole = {"descriptor", "uid", "time", "seq_num", "timestamps", "filled"} <= set(doc)
        return (str(doc["descriptor"]), *doc["data"]) if whole else id(doc)

    found: list[Document] = []
    for same, group in itertools.groupby(documents, kind):
        members = [*group]
        if not isinstance(same, tuple):
            found += members
            continue
        for k in range(0, len(members), rows):
            page = event_model.pack_event_page(*(doc for _, doc in members[k : k + rows]))
            found.append(("event_page", dict(page)))
    return found


@st.composite
def documents(draw: st.DrawFn) -> list[Document]:
    """One or two runs, interleaved, with Events that are changed, repeated, lost or exchanged."""
    runs = []
    for n in range(draw(st.integers(1, 2))):
        begin, events, stop = scan(n, draw(st.integers(1, 3)), whole=draw(st.booleans()))
        place = st.integers(0, len(events) - 1)
        for at, change in draw(st.dictionaries(place, st.sampled_from([*CHANGES]), max_size=4)).items():
            events[at] = "event", CHANGES[change](events[at][1])
        kinds = st.sampled_from(["repeat", "lose", "later", "twice"])
        for kind, at in draw(st.lists(st.tuples(kinds, place), max_size=3)):
            at = min(at, len(events) - 1)
            if kind == "lose":
                del events[at]
            elif kind == "repeat":
                events.append(events[at])
            elif kind == "twice":
                events.insert(at, events[at])
            else:
                events.insert(min(at + 3, len(events) - 1), events.pop(at))
        last = stop if draw(st.booleans()) else ("stop", {**stop[1], "num_events": {"primary": len(events) + 1}})
        runs.append([*begin, *events, last][draw(st.sampled_from([0, 0, 0, 1, 2])) :])
    found: list[Document] = []
    while any(runs):
        run = draw(st.sampled_from([run for run in runs if run]))
        count = draw(st.integers(1, len(run)))
        found += run[:count]
        del run[:count]
    return found


def without_malformed(outcomes: list[Any]) -> tuple[list[Any], int]:
    """The outcomes without the notes on malformed documents, and the number of these documents."""
    notes = [o for o in outcomes if isinstance(o, dict) and o.get("reason") == Reason.MALFORMED_DOCUMENT]
    return [o for o in outcomes if o not in notes], sum(int(note["count"]) for note in notes)


@settings(max_examples=30)
@given(
    documents=documents(),
    together=st.integers(2, 40),
    rows=st.sampled_from([0, 0, 1, 5, 30]),
    steps=st.lists(st.floats(-0.1, 3.0), max_size=5),
)
def test_outcomes_are_those_of_single_events(documents, together, rows, steps):
    at, received = 100.0, []
    documents = in_pages(documents, rows) if rows else documents
    for k, (name, doc) in enumerate(documents):
        at += steps[k % len(steps)] / 10 if steps else 0.001
        received.append(Received(name, doc, at))
    alone, grouped = FrameReader(FIELDS), FrameReader(FIELDS)
    outcomes, expected = read(grouped, received, together), read(alone, received, 1)
    if rows:  # notes on Events that cannot be read may come after the frames of their page, and be joined otherwise
        outcomes, expected = without_malformed(outcomes), without_malformed(expected)
    assert outcomes == expected


def test_a_reader_goes_on_from_the_position_of_either():
    begin, events, _ = scan(0, 3)
    received = [Received(name, doc, 1.0) for name, doc in [*begin, *events]]
    alone, grouped = FrameReader(FIELDS), FrameReader(FIELDS)
    for document in received:
        alone(document)
    assert sum(count for count, _ in grouped.read(received)) == len(received)
    assert grouped.positions("run 0") == alone.positions("run 0") != {}
    assert grouped.points == alone.points != (0, 0)


def test_points_that_are_read_together_end_the_silence_of_their_run():
    (begin, events, _), (others, _, _) = scan(0, 2), scan(1, 1)
    received = [Received(name, doc, 0.0) for name, doc in [*begin, *events[:3]]]
    received += [Received(name, doc, 40.0) for name, doc in [*others, *events[3:6]]]  # after so long a silence
    alone, grouped = FrameReader(FIELDS), FrameReader(FIELDS)
    for document in received:
        alone(document)
    assert [count for count, _ in grouped.read(received)][-1] == 3
    gaps_s = [reader._book._runs.open["run 0"].longest_gap_s for reader in (alone, grouped)]
    assert gaps_s == [40.0, 40.0]


class Doubling:
    """A stage that doubles I0 of the Events of a stream."""

    waiting = False

    def __init__(self, descriptor: str) -> None:
        self._descriptor = descriptor

    def passes(self, run: str, descriptor: str) -> bool:
        return descriptor != self._descriptor

    def __call__(self, document: RunDocument) -> list[RunDocument]:
        if document.name != "event" or document.doc["descriptor"] != self._descriptor:
            return [document]
        data = document.doc["data"]
        doc = {**document.doc, "data": {**data, "I0": 2 * data["I0"]}}
        return [RunDocument(document.run, "event", doc, document.at)]

    def poll(self, now: float) -> list[RunDocument]:
        return []

    def finish(self) -> list[RunDocument]:
        return []


@pytest.mark.parametrize(("descriptor", "in_book"), [("another", 4), ("stream 0", 1 + 2 + 24)])
def test_only_events_that_no_stage_changes_skip_the_book(descriptor, in_book, monkeypatch):
    seen: list[str] = []
    call = Book.__call__
    monkeypatch.setattr(Book, "__call__", lambda book, document: seen.append(document.name) or call(book, document))
    begin, events, stop = scan(0, 2)
    received = [Received(name, doc, 1.0) for name, doc in [*begin, *events, stop]]
    frames = [
        {part: outcome[part] for part in ("mu", "run_uid", "seq_num")}
        for outcome in read(FrameReader(FIELDS, stages=[Doubling(descriptor)]), received, 10)
        if isinstance(outcome, dict)
    ]
    assert len(frames) == 2
    assert len(seen) == in_book
    changed = descriptor == "stream 0"
    expected = 0.5 + np.arctan(UP[0] - 7709) / np.pi + np.log(2) * changed
    assert np.frombuffer(frames[0]["mu"])[0] == pytest.approx(expected, abs=2e-3)
