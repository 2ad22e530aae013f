"""What fails unexpectedly on one document, frame or run costs no other one."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import event_model
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import capture_logs
from watched import EDGES, RELATIVE, Watched, WhiteLine, spectrum

from xas_agent.agent.decide.dispatch import ControlSettings
from xas_agent.agent.decide.requests import Requests
from xas_agent.agent.decide.rules import Rule, Rules
from xas_agent.agent.estimate import serve
from xas_agent.agent.left_out import LeftOut
from xas_agent.agent.load import Load
from xas_agent.agent.pipeline import Pipeline
from xas_agent.agent.progress import Progress
from xas_agent.agent.publish import AgentRun, AgentRuns, FrameRows
from xas_agent.agent.relative import RelativeQuantities, RelativeSettings
from xas_agent.agent.spectra import AlignmentSettings, SeriesAlignment
from xas_agent.agent.stream.assembler import FrameAssembler
from xas_agent.agent.stream.book import Book
from xas_agent.agent.stream.reader import FrameReader
from xas_agent.agent.stream.run import RunAssembler
from xas_agent.agent.types import Frame, RunDocument, SetAside
from xas_agent.agent.types.frame import Document, Received

FRAMES = 4
NEVER = Rule.model_validate(
    {"name": "high", "trigger": {"kind": "threshold", "descriptor": "OS", "above": 1e6}, "action": "stop"}
)


class Holding:
    """A stage between the book and the assembler that holds the stop of each run back until it is asked."""

    def __init__(self) -> None:
        self._stops: list[RunDocument | SetAside] = []

    @property
    def waiting(self) -> bool:
        return bool(self._stops)

    def __call__(self, document: RunDocument) -> list[RunDocument | SetAside]:
        if document.name != "stop":
            return [document]
        self._stops.append(document)
        return []

    def passes(self, run: str, descriptor: str) -> bool:
        return True

    def poll(self, now: float) -> Iterator[RunDocument | SetAside]:
        while self._stops:
            yield self.release(self._stops.pop(0))

    def finish(self) -> Iterator[RunDocument | SetAside]:
        return self.poll(np.inf)

    def release(self, document: RunDocument) -> RunDocument:
        return document


class Kept:
    """Takes the progress, in place of a journal."""

    def __call__(self, progress: Progress) -> None: ...


class BrokenError(RuntimeError):
    """The unexpected failure."""


ALL = -1
"""In place of a number: whatever the run does."""


def frame_of(*args: Any) -> Sequence[tuple[str, int]]:
    """Return the runs and numbers of the frames or notes among arguments."""
    found: list[tuple[str, int]] = []
    for arg in args:
        for item in arg if isinstance(arg, list | tuple) else [arg]:
            frame = getattr(item, "frame", item)  # of an answer
            if isinstance(frame, Frame | SetAside):
                found.append((frame.run_uid, frame.seq_num or 0))
    return found


def rows_of(_: object, rows: FrameRows, **options: Any) -> Sequence[tuple[str, int]]:
    return frame_of([*rows.frames])


def run_of(*args: Any) -> Sequence[tuple[str, int]]:
    """Return the run that arguments name."""
    for arg in args[1:]:
        uid = arg.run.uid if isinstance(arg, RunDocument) else getattr(arg, "uid", arg)
        if isinstance(uid, str):
            return [(uid, ALL)]
    return ()


def number_of(_: object, run_uid: str, number: int) -> Sequence[tuple[str, int]]:
    return [(run_uid, number)]


def event_of(_: object, document: RunDocument) -> Sequence[tuple[str, int]]:
    return [(document.run.uid, document.doc.get("seq_num", 0))]


def points_of(run: RunAssembler, *_: Any) -> Sequence[tuple[str, int]]:
    return [(run.info.uid, ALL)]


def any_run(*_: Any) -> None:
    return None


FRAME, NOTHING, RUN = "the frame", "nothing", "its run's"
PLACES: dict[str, tuple[object, str, Callable[..., Sequence[tuple[str, int]] | None], str]] = {
    "stage": (Holding, "__call__", event_of, FRAME),
    "release": (Holding, "release", run_of, RUN),
    "book at the end of a run": (Book, "_finish_if_complete", run_of, NOTHING),
    "book on lost events": (Book, "_report_unread_events", run_of, NOTHING),
    "book on a lost start": (Book, "_give_up_start", run_of, NOTHING),
    "assembler": (FrameAssembler, "_read", event_of, FRAME),
    "events in order": (RunAssembler, "in_order", points_of, NOTHING),
    "events together": (RunAssembler, "form_together", points_of, NOTHING),
    "frame measured": (Requests, "measured", number_of, NOTHING),
    "choice of the model": (serve.FrameServer, "_choose", frame_of, FRAME),
    "kind of the frame": (SeriesAlignment, "kind", frame_of, FRAME),
    "alignment": (SeriesAlignment, "__call__", frame_of, FRAME),
    "batch": (serve.FrameServer, "_aligned", frame_of, FRAME),
    "estimate": (serve.FrameServer, "_estimates", frame_of, FRAME),
    "relative": (RelativeQuantities, "__call__", frame_of, FRAME),
    "relative together": (RelativeQuantities, "adds_nothing", frame_of, NOTHING),
    "publication": (AgentRun, "frames", rows_of, FRAME),
    "judgement": (Rules, "__call__", frame_of, NOTHING),
    "rules on a note": (Rules, "note", frame_of, NOTHING),
    "note": (AgentRun, "set_aside", frame_of, NOTHING),
    "memory of a series": (SeriesAlignment, "memory", frame_of, NOTHING),
    "memory of the rules": (Rules, "memory", run_of, NOTHING),
    "position": (FrameReader, "positions", run_of, NOTHING),
    "journal": (Kept, "__call__", any_run, NOTHING),
    "start of a run": (RelativeQuantities, "begin", run_of, NOTHING),
    "rules at the end": (Rules, "forget", run_of, NOTHING),
    "end of a run": (AgentRuns, "end", run_of, NOTHING),
    "events formed": (FrameAssembler, "_form", any_run, NOTHING),
    "load": (Load, "learn", any_run, NOTHING),
    "frames left out": (LeftOut, "report", any_run, NOTHING),
    "requests": (Requests, "send", any_run, NOTHING),
}
"""What fails, on which runs and numbers (None: always), and what is then lost."""


def failing(monkeypatch: pytest.MonkeyPatch, place: str, bad: tuple[str, int]) -> list[int]:
    """Let a place fail on a run and number; return a list with an entry for each failure."""
    owner, name, names, _ = PLACES[place]
    real, failed = getattr(owner, name), []

    def fails(*args: Any, **options: Any) -> Any:
        found = names(*args)
        if found is None or bad in found or (bad[0], ALL) in found:
            failed.append(1)
            raise BrokenError(place)
        return real(*args, **options)

    monkeypatch.setattr(owner, name, fails)
    return failed


def steps(element: str, count: int) -> list[Document]:
    """Documents of a run of ``count`` step scans."""
    run = event_model.compose_run(metadata={"element": element, "edge": "K"})
    keys: Any = {k: {"source": "test", "dtype": "number", "shape": []} for k in ("energy", "I0", "It")}
    described = run.compose_descriptor(name="primary", data_keys=keys)
    docs: list[Any] = [("start", run.start_doc), ("descriptor", described.descriptor_doc)]
    for k in range(count):
        for energy, mu in list(zip(EDGES[element] + RELATIVE, spectrum(0.3 + 0.1 * k), strict=True))[:: (-1) ** k]:
            data = {"energy": energy, "I0": 1e6, "It": 1e6 * np.exp(-mu)}
            docs.append(("event", {**described.compose_event(data=data, timestamps=dict.fromkeys(data, 1.0))}))
    docs.append(("stop", run.compose_stop()))
    return docs


def documents_of(kind: str, element: str) -> list[Document]:
    """Documents of a run of some frames, of which the third is refused."""
    if kind == "points":
        return steps(element, FRAMES)
    watched = Watched(element, 0.3, 0.4)
    watched.frame(np.full_like(RELATIVE, np.nan)).frame(spectrum(0.5)).stop()
    if kind == "events":
        return watched.docs
    events: Any = [doc for name, doc in watched.docs if name == "event"]
    page: Any = event_model.pack_event_page(*events)
    return [*watched.docs[:2], ("event_page", page), watched.docs[-1]]


Answers = dict[str, dict[int, float]]
"""Means by run and number of the frame."""


def pipeline_of(told: list[Document], rules: list[Rule], **options: Any) -> Pipeline:
    return Pipeline(
        FrameReader(stages=[Holding()]),
        [WhiteLine("Co"), WhiteLine("Ni")],
        AlignmentSettings(),
        Rules(rules, units={"OS": "e"}),
        lambda name, doc: told.append((name, doc)),
        controls=ControlSettings(),
        control=None,
        config_sha256="b" * 64,
        versions={"xas_agent": "test"},
        committed=Kept(),
        **options,
    )


def served(
    runs: list[list[Document]], rules: list[Rule], batches: list[int], quantity: str = "OS", **options: Any
) -> tuple[Answers, int]:
    """Feed runs in batches that end at some places; return the answered frames of each run, and how many the
    pipeline counts as lost."""
    told: list[Document] = []
    pipeline = pipeline_of(told, rules, **options)
    now = time.monotonic()
    received = [Received(name, doc, now) for run in runs for name, doc in run]
    for begin, end in zip([0, *batches], [*batches, len(received)], strict=True):
        pipeline.feed(received[begin:end])
    pipeline.idle()
    pipeline.close()
    parents = {doc["uid"]: doc["parent_uid"] for name, doc in told if name == "start"}
    streams = {d["uid"]: d for name, d in told if name == "descriptor" and d["name"] == "descriptors"}
    answered: Answers = {uid_of(run): {} for run in runs}
    for name, doc in told:
        if name == "event" and (stream := streams.get(doc["descriptor"])):
            found, number = answered[parents[stream["run_start"]]], doc["data"]["frame_seq_num"]
            assert number > max(found, default=0)  # once and in order
            found[number] = round(doc["data"].get(f"{quantity}_mean", np.nan), 6)
    assert sorted(doc["run_start"] for name, doc in told if name == "stop") == sorted(parents)
    return answered, pipeline.lost


def uid_of(run: list[Document]) -> str:
    return next(doc["run_start"] for name, doc in run if name == "descriptor")


@pytest.mark.parametrize("place", PLACES)
@given(st.data())
@settings(max_examples=5)
def test_what_fails_on_one_document_costs_it_alone(place: str, data: st.DataObject):
    kinds = data.draw(st.lists(st.sampled_from(["events", "pages", "points"]), min_size=2, max_size=3))
    runs = [documents_of(kind, data.draw(st.sampled_from(["Co", "Ni"]))) for kind in kinds]
    k = data.draw(st.integers(0, len(runs) - 1))
    uid = uid_of(runs[k])
    absent = "start" if place == "book on a lost start" else data.draw(st.sampled_from(["", "", "start", "stop"]))
    runs[k] = [(name, doc) for name, doc in runs[k] if name != absent]
    rules = data.draw(st.sampled_from([[], [NEVER]]))
    total = sum(map(len, runs))
    batches = sorted(data.draw(st.lists(st.integers(1, total - 1), max_size=2, unique=True)))
    sound, lost = served(runs, rules, batches)
    assert lost == 0
    bad = uid, data.draw(st.integers(1, FRAMES))
    with pytest.MonkeyPatch.context() as monkeypatch, capture_logs() as logs:
        failures = failing(monkeypatch, place, bad)
        answered, lost = served(runs, rules, batches)
    if not failures:
        assert answered == sound
        return
    costs = PLACES[place][3]
    if kinds[k] == "points" and place in ("stage", "assembler"):  # a frame lacks a point, as if it was lost
        runs[k] = [(name, doc) for name, doc in runs[k] if doc.get("seq_num") != bad[1]]
        sound, _ = served(runs, rules, [])
    elif costs == RUN:
        assert answered[uid].items() <= sound[uid].items()
        sound[uid] = answered[uid]
    elif costs == FRAME:
        sound[uid].pop(bad[1], None)
    assert {uid: [*found.values()] for uid, found in answered.items()} == {
        uid: [*found.values()] for uid, found in sound.items()
    }
    assert any("Broken" in str(line) for line in logs)
    assert lost == (place == "note")  # what else fails is told, or is no data


def test_a_frame_counts_once_in_its_series_if_its_publication_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    def rates() -> dict[int, float]:
        relative = RelativeQuantities((), RelativeSettings(rate=("OS",), rate_frames=5), {"OS": "e"})
        answered, lost = served([run], [], [], "OS_rate", relative=relative)
        assert lost == 0
        return answered[uid_of(run)]

    run = Watched("Co", 0.3, 0.35, 0.5, 0.4, 0.7, 0.6, 0.9, 0.8).stop().docs
    sound = rates()
    monkeypatch.setattr(AgentRun, "frames", fails_together(AgentRun.frames, 6))
    answered = rates()
    assert sound.pop(6) > 0
    assert answered == pytest.approx(sound, nan_ok=True)
    assert np.isfinite([sound[n] for n in (5, 7, 8)]).all()


def fails_together(publish: Callable[..., None], number: int) -> Callable[..., None]:
    """Return a publication that fails on all frames that come together with one."""

    def fails(run: AgentRun, rows: FrameRows, **options: Any) -> None:
        if number in [frame.seq_num for frame in rows.frames]:
            raise BrokenError
        publish(run, rows, **options)

    return fails


def test_a_run_that_cannot_be_ended_costs_no_other_one(monkeypatch: pytest.MonkeyPatch):
    told: list[Document] = []
    pipeline = pipeline_of(told, [])
    for element in ("Co", "Ni", "Co"):
        docs = Watched(element, 0.3).docs
        pipeline.feed([Received(name, doc, time.monotonic()) for name, doc in docs])
    real, failures = AgentRun.close, iter([BrokenError("close"), None, None])

    def fails(run: AgentRun, *args: Any, **options: Any) -> None:
        if (error := next(failures)) is not None:
            raise error
        real(run, *args, **options)

    monkeypatch.setattr(AgentRun, "close", fails)
    with capture_logs() as logs:
        pipeline.close()
    assert [name for name, _ in told].count("stop") == 2
    assert any("Broken" in str(line) for line in logs)
