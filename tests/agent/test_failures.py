"""What fails unexpectedly on one document, frame or run costs no other one."""

import time
from collections.abc import Callable
from typing import Any

import event_model
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import capture_logs
from watched import EDGES, RELATIVE, Watched, WhiteLine, spectrum

from xas_agent.agent.decide.dispatch import ControlSettings
from xas_agent.agent.decide.rules import Rule, Rules
from xas_agent.agent.estimate import serve
from xas_agent.agent.pipeline import Pipeline
from xas_agent.agent.publish import AgentRun, AgentRuns
from xas_agent.agent.relative import RelativeQuantities
from xas_agent.agent.spectra import AlignmentSettings, SeriesAlignment
from xas_agent.agent.stream.assembler import FrameAssembler
from xas_agent.agent.stream.reader import FrameReader
from xas_agent.agent.types import Frame, RunDocument, SetAside
from xas_agent.agent.types.frame import Document, Received

FRAMES = 4
NEVER = Rule.model_validate(
    {"name": "high", "trigger": {"kind": "threshold", "descriptor": "OS", "above": 1e6}, "action": "stop"}
)


class Passing:
    """A stage between the book and the assembler that only passes documents on."""

    waiting = False

    def __call__(self, document: RunDocument) -> list[RunDocument | SetAside]:
        return [document]

    def passes(self, run: str, descriptor: str) -> bool:
        return False

    def poll(self, now: float) -> list[RunDocument | SetAside]:
        return []

    def finish(self) -> list[RunDocument | SetAside]:
        return []


class BrokenError(RuntimeError):
    """The unexpected failure."""


def frame_of(*args: Any) -> tuple[str, int]:
    """Return the run and number of the first frame or note among arguments."""
    for arg in args:
        for item in arg if isinstance(arg, list | tuple) else [arg]:
            if isinstance(item, Frame | SetAside):
                return item.run_uid, item.seq_num or 0
    return "", 0


def run_of(*args: Any) -> tuple[str, int]:
    """Return the run that arguments name."""
    for arg in args:
        if isinstance(arg, RunDocument):
            return (arg.run.uid, 1) if arg.name == "start" else ("", 0)
        if isinstance(getattr(arg, "uid", arg), str):
            return getattr(arg, "uid", arg), 1
    return "", 0


def event_of(_: object, document: RunDocument) -> tuple[str, int]:
    return document.run.uid, document.doc.get("seq_num", 0)


PLACES: dict[str, tuple[object, str, Callable[..., tuple[str, int]], bool]] = {
    "stage": (Passing, "__call__", event_of, True),
    "assembler": (FrameAssembler, "_read", event_of, True),
    "choice of the model": (serve.FrameServer, "_choose", frame_of, True),
    "kind of the frame": (SeriesAlignment, "kind", frame_of, True),
    "alignment": (SeriesAlignment, "__call__", frame_of, True),
    "relative": (RelativeQuantities, "__call__", frame_of, True),
    "judgement": (Rules, "__call__", frame_of, False),
    "rules on a note": (Rules, "note", frame_of, False),
    "note": (AgentRun, "set_aside", frame_of, False),
    "start of a run": (RelativeQuantities, "begin", run_of, False),
    "rules at the end": (Rules, "forget", run_of, False),
    "end of a run": (AgentRuns, "end", run_of, False),
}
"""What fails, on which run and number, and whether the frame is then lost."""


def failing(monkeypatch: pytest.MonkeyPatch, place: str, bad: tuple[str, int]) -> list[int]:
    """Let a place fail on a run and number; return a list with an entry for each failure."""
    owner, name, names, _ = PLACES[place]
    real, failed = getattr(owner, name), []

    def fails(*args: Any, **options: Any) -> Any:
        if names(*args) == bad:
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


def served(runs: list[list[Document]], rules: list[Rule], batches: list[int]) -> tuple[Answers, int]:
    """Feed runs after each other, in batches that end at some places; return the answered frames of each run, and
    how many the pipeline counts as lost."""
    told: list[Document] = []
    pipeline = Pipeline(
        FrameReader(stages=[Passing()]),
        [WhiteLine("Co"), WhiteLine("Ni")],
        AlignmentSettings(),
        Rules(rules, units={"OS": "e"}),
        lambda name, doc: told.append((name, doc)),
        controls=ControlSettings(),
        control=None,
        config_sha256="b" * 64,
        versions={"xas_agent": "test"},
        committed=lambda progress: None,
    )
    now = time.monotonic()
    received = [Received(name, doc, now) for run in runs for name, doc in run]
    for begin, end in zip([0, *batches], [*batches, len(received)], strict=True):
        pipeline.feed(received[begin:end])
    pipeline.idle()
    parents = {doc["uid"]: doc["parent_uid"] for name, doc in told if name == "start"}
    streams = {d["uid"]: d for name, d in told if name == "descriptor" and d["name"] == "descriptors"}
    answered: Answers = {run[0][1]["uid"]: {} for run in runs}
    for name, doc in told:
        if name == "event" and (stream := streams.get(doc["descriptor"])):
            found, number = answered[parents[stream["run_start"]]], doc["data"]["frame_seq_num"]
            assert number > max(found, default=0)  # once and in order
            found[number] = round(doc["data"]["OS_mean"], 6)
    stopped = [doc["run_start"] for name, doc in told if name == "stop"]
    assert len(stopped) == len(set(stopped))
    return answered, pipeline.lost


@given(st.data())
@settings(max_examples=40)
def test_what_fails_on_one_document_costs_it_alone(data: st.DataObject):
    kinds = data.draw(st.lists(st.sampled_from(["events", "pages", "points"]), min_size=2, max_size=3))
    runs = [documents_of(kind, data.draw(st.sampled_from(["Co", "Ni"]))) for kind in kinds]
    rules = data.draw(st.sampled_from([[], [NEVER]]))
    total = sum(map(len, runs))
    batches = sorted(data.draw(st.lists(st.integers(1, total - 1), max_size=2, unique=True)))
    sound, lost = served(runs, rules, batches)
    assert lost == 0
    place = data.draw(st.sampled_from([*PLACES]))
    k = data.draw(st.integers(0, len(runs) - 1))
    bad = runs[k][0][1]["uid"], data.draw(st.integers(1, FRAMES))
    with pytest.MonkeyPatch.context() as monkeypatch, capture_logs() as logs:
        failures = failing(monkeypatch, place, bad)
        answered, lost = served(runs, rules, batches)
    point_failed = kinds[k] == "points" and place in ("stage", "assembler")  # one of many of a frame
    if failures and PLACES[place][3] and not point_failed:
        sound[bad[0]].pop(bad[1], None)
    if point_failed and failures:  # the scan of a lost point may be refused
        sound[bad[0]] = answered[bad[0]]
    assert {uid: [*found.values()] for uid, found in answered.items()} == {
        uid: [*found.values()] for uid, found in sound.items()
    }
    if failures:
        assert any("Broken" in str(line) for line in logs)
        assert lost == (place == "note")  # what else fails is told, or is no data
