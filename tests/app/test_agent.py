"""The agent as a callback: real RunEngine, real devices, the shipped Co model."""

import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import damaged_documents
import event_model
import numpy as np
import pytest
import shapes
import yaml
from bluesky import RunEngine
from bluesky.plans import count
from bluesky.utils import RunEngineInterrupted
from deadline import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import capture_logs
from shared_source import Source
from valid import check_document

from xas_agent import XASAgent, load_config
from xas_agent.adapters.runengine import RunEngineControl
from xas_agent.agent.pipeline import Pipeline
from xas_agent.agent.types import InputError
from xas_agent.agent.types.frame import Document
from xas_agent.agent.types.protocols import Control, Estimator
from xas_agent.app.config import ConfigError
from xas_agent.app.inbox import Inbox
from xas_agent.app.journal import JOURNAL, Journal
from xas_agent.app.subscribers import Subscribers
from xas_agent.app.wiring import load_models
from xas_agent.models.card import ModelError
from xas_agent.sim_beamline.beamline import SimBeamline, detectors
from xas_agent.sim_beamline.settings import BeamlineSettings

CO: dict[str, Any] = {"model": {"use": ["co-k"], "threads": 1}}
MD = {"element": "Co", "edge": "K"}
WAIT_S = 60.0
FAR: dict[str, Any] = {"kind": "threshold", "descriptor": "position", "above": 0.99}


@cache
def loaded_models() -> Sequence[Estimator]:
    return load_models(load_config(CO))


class Watching:
    """An agent and the documents that it published."""

    def __init__(
        self, obeys: Control | None = None, models: Sequence[Estimator] | None = None, **config: Any
    ) -> None:
        self.documents: list[Document] = []
        self.agent = XASAgent(load_config(CO | config), models or loaded_models(), obeys)
        self.agent.subscribe(lambda name, doc: self.documents.append((name, doc)))

    def __enter__(self) -> "Watching":
        return self

    def __exit__(self, *exc: object) -> None:
        self.agent.close()

    def named(self, name: str) -> list[dict[str, Any]]:
        return [doc for each, doc in self.documents if each == name]

    def events(self, stream: str) -> list[dict[str, Any]]:
        uids = {d["uid"] for d in self.named("descriptor") if d["name"] == stream}
        return [e["data"] for e in self.named("event") if e["descriptor"] in uids]

    def check(self) -> None:
        """Every document is valid, every run is whole, no frame is answered twice."""
        for name, doc in self.documents:
            check_document(name, doc)
        runs = [s["uid"] for s in self.named("start")]
        assert sorted(s["run_start"] for s in self.named("stop")) == sorted(runs)
        frames = [e["frame_uid"] for e in self.events("descriptors")]
        assert len(set(frames)) == len(frames)


@pytest.fixture
def watching() -> Iterator[Watching]:
    with Watching() as watching:
        yield watching


@pytest.fixture
def RE() -> RunEngine:  # noqa: N802 - its name everywhere
    return RunEngine({})


@cache
def recorded() -> list[Document]:
    """Two runs of three frames each, by the RunEngine."""
    RE, documents = RunEngine({}), []
    RE.subscribe(lambda name, doc: documents.append((name, doc)))
    for _ in range(2):
        RE(count(detectors(), 3, md=MD))
    return documents


# ------------------------------------------------------------------ documents


def test_every_frame_of_every_run_is_answered(RE, watching):
    RE.subscribe(watching.agent)
    watched = RE(count(detectors(), 3, md={**MD, "sample_name": "cathode"})) + RE(count(detectors(1), 2, md=MD))
    assert watching.agent.wait(WAIT_S)
    watching.check()
    assert [s["parent_uid"] for s in watching.named("start")] == list(watched)
    assert [e["frame_seq_num"] for e in watching.events("descriptors")] == [1, 2, 3, 1, 2]
    assert [s["exit_status"] for s in watching.named("stop")] == ["success", "success"]
    for start in watching.named("start"):
        assert start["xas_agent"] is True
        assert start["model"] == {"name": "co-k", "sha256": loaded_models()[0].sha256}
        assert start["config_sha256"] == load_config(CO).sha256
        assert {"xas_agent", "torch", "numpy", "python"} <= set(start["versions"])
    for data in watching.events("descriptors"):
        assert abs(data["OS_mean"] - 3) < 0.2  # LiCoO2
        assert data["voltage"] == pytest.approx(3.75, abs=0.2)
        assert "temperature" in data
    assert all(len(e["spectrum"]) == len(loaded_models()[0].grid) for e in watching.events("spectra"))
    assert watching.events("quality") == []


def test_anchors_of_the_config_of_the_run_and_of_a_call(RE):
    with Watching(anchors=[{"frame": "first", "OS_mean": 3.3}]) as watching:
        RE.subscribe(watching.agent)
        RE(count(detectors(), 2, md={**MD, "sample_name": "config"}))
        RE(count(detectors(), 2, md={**MD, "sample_name": "run", "xas_anchors": [{"frame": 2, "OS_mean": 2.5}]}))
        assert watching.agent.wait(WAIT_S)
        watching.agent.anchor({"OS": 2.0}, sd=0.001)
        RE(count(detectors(), 1, md={**MD, "sample_name": "run"}))
        assert watching.agent.wait(WAIT_S)
    watching.check()
    events = watching.events("descriptors")
    anchored = [round(event.get("OS_anchored_mean", 0.0), 1) for event in events]
    assert anchored[:4] == pytest.approx([3.3, 3.3, 0.0, 2.5], abs=0.11)  # the frames are noisy
    assert 2.0 < anchored[4] < 2.5  # both count
    assert "anchors disagree" in events[4]["flags"]
    layouts = [set(d["data_keys"]) for d in watching.named("descriptor") if d["name"] == "descriptors"]
    assert ["OS_anchored_mean" in keys for keys in layouts] == [True, False, True, True]


def test_a_call_with_a_value_of_no_descriptor_is_refused(watching):
    with pytest.raises(ConfigError, match="anchor: xas_anchors: found descriptor 'Os', expected a descriptor of"):
        watching.agent.anchor({"Os": 3.0})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"anchors": [{"frame": 1, "Os_mean": 3.0}]}, "anchors: found descriptor 'Os', expected a descriptor of"),
        ({"relative": {"change": ["x"]}}, "relative.change: found descriptor 'x'"),
        ({"relative": {"rate": ["OS_anchored"]}}, "relative.rate: found descriptor 'OS_anchored'"),
        (
            {"rules": [{"name": "r", "trigger": {**FAR, "descriptor": "OS_rate"}}]},
            "OS_rate needs relative",
        ),
        ({"relative": {"references": ["none.xdi"]}}, "none.xdi"),
    ],
)
def test_what_no_model_gives_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        Watching(**config)


def test_rules_and_documents_have_the_quantities_of_a_series(tmp_path, RE):
    file = tmp_path / "reference.txt"
    data = next(doc["data"] for name, doc in recorded() if name == "event")
    energy, i0, it = (np.asarray(data[key]) for key in ("energy", "I0", "It"))
    np.savetxt(file, np.column_stack([energy, np.log(i0 / it)]), header="energy mu")
    relative = {"change": ["OS"], "rate": ["OS"], "rate_frames": 5, "references": [str(file), 3]}
    with Watching(relative=relative, rules=[{"name": "far", "trigger": FAR}]) as watching:
        RE.subscribe(watching.agent)
        RE(count(detectors(), 6, md=MD))
        assert watching.agent.wait(WAIT_S)
    watching.check()
    events = watching.events("descriptors")
    assert [("OS_rate_mean" in e, "position_mean" in e) for e in events] == [(k > 3, k > 1) for k in range(6)]
    assert events[2]["position_mean"] == pytest.approx(1.0)
    assert all(0 < e["distance_mean"] < 0.1 and "OS_change_lo" in e for e in events)
    assert [d["rule"] for d in watching.events("decisions")][:1] == ["far"]
    keys = [d["data_keys"] for d in watching.named("descriptor") if d["name"] == "descriptors"][-1]
    units = [keys[f"{name}_mean"]["units"] for name in ("OS_change", "OS_rate", "position", "distance")]
    assert units == ["e", "e/h", "dimensionless", "dimensionless"]


def test_spectra_can_be_left_out():
    for serving, streams in (
        ({"spectra": False}, {"descriptors", "measured"}),
        ({"measured": False}, {"descriptors", "spectra"}),
        ({"spectra": False, "measured": False}, {"descriptors"}),
    ):
        with Watching(serving=serving) as watching:
            for document in recorded():
                watching.agent(*document)
            assert watching.agent.wait(WAIT_S)
        watching.check()
        assert {d["name"] for d in watching.named("descriptor")} == streams


def test_the_run_of_a_plan_that_fails_or_is_aborted_is_closed(RE, watching):
    def failing():
        yield from bps.open_run(MD)
        devices = detectors()
        yield from bps.stage_all(*devices[:1])
        yield from bps.trigger_and_read(devices)
        raise RuntimeError("beam dump")

    def aborted():
        yield from count(detectors(), 1, md=MD, per_shot=one_then_pause)

    def one_then_pause(devices):
        yield from bps.one_shot(devices)
        yield from bps.pause()

    RE.subscribe(watching.agent)
    with pytest.raises(RuntimeError, match="beam dump"):
        RE(failing())
    with pytest.raises(RunEngineInterrupted):
        RE(aborted())
    RE.abort()
    assert watching.agent.wait(WAIT_S)
    watching.check()
    assert len(watching.events("descriptors")) == 2
    fail, abort = watching.named("stop")
    assert fail["exit_status"] == "fail"
    assert "beam dump" in fail["reason"]
    assert abort["exit_status"] == "abort"


@pytest.mark.parametrize("mode", ["fly", "step"])
def test_the_simulated_beamline_with_its_robot(watching, mode):
    SimBeamline(BeamlineSettings(frames=3, mode=mode, frame_period_s=0), [watching.agent]).run()
    assert watching.agent.wait(WAIT_S)
    watching.check()
    events = watching.events("descriptors")
    assert [e["frame_seq_num"] for e in events] == [1, 2, 3]
    for data in events:
        assert data["electrode_mass_mg"] == pytest.approx(11.1, abs=0.5)  # what the robot said of the sample
        assert data["ood_score"] <= 1
    (start,) = watching.named("start")
    assert start["sample_uid"]


def test_ones_own_documents_coming_back_are_passed_over(watching):
    watching.agent.subscribe(watching.agent)  # as through a shared proxy
    for document in recorded():
        watching.agent(*document)
    assert watching.agent.wait(WAIT_S)
    for document in list(watching.documents):  # and again, later
        watching.agent(*document)
    assert watching.agent.wait(WAIT_S)
    watching.agent.close()
    watching.check()
    assert len(watching.events("descriptors")) == 6
    assert len(watching.named("start")) == 2


def test_what_a_detector_does_to_its_arrays_later_is_its_own(watching):
    for name, doc in recorded():
        if name != "event":
            watching.agent(name, doc)
            continue
        data = {k: np.copy(v) if np.ndim(v) else v for k, v in doc["data"].items()}
        watching.agent(name, {**doc, "data": data})
        for value in data.values():
            if np.ndim(value):
                value[:] = 0
    assert watching.agent.wait(WAIT_S)
    assert len(watching.events("descriptors")) == 6


# ------------------------------------------------------------------ a callback harms nobody


def test_a_subscriber_that_raises_costs_the_others_nothing(RE, watching):
    def broken(name: str, doc: dict[str, Any]) -> None:
        raise OSError("disk full")

    token = watching.agent.subscribe(broken)
    RE.subscribe(watching.agent)
    with capture_logs() as logs:
        RE(count(detectors(), 2, md=MD))
        assert watching.agent.wait(WAIT_S)
    watching.check()
    assert len(watching.events("descriptors")) == 2
    (failure,) = [e for e in logs if e["event"].startswith("subscriber failed")]
    assert failure["subscriber"].endswith("broken")
    with capture_logs() as logs:
        watching.agent.unsubscribe(token)
        watching.agent.unsubscribe(token)
    (told,) = [e for e in logs if e["event"] == "documents not delivered"]
    assert (told["lost"], told["failed"]) == (0, len(watching.documents))


ANYTHING: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["uid", "time", "run_start", "descriptor", "data", "data_keys", "seq_num", "name"])
NAMES = st.sampled_from(["start", "descriptor", "event", "event_page", "stop", "resource"])


@pytest.fixture(scope="module")
def patient() -> Iterator[Watching]:
    with Watching() as watching:
        yield watching


@given(st.lists(st.tuples(NAMES | ANYTHING, ANYTHING | st.dictionaries(KEYS, ANYTHING, max_size=8)), max_size=5))
@settings(max_examples=60, deadline=None)
def test_nothing_that_is_no_document_raises_or_stops_it(patient, garbage):
    before = len(patient.events("descriptors"))
    made = event_model.compose_run(metadata=MD, validate=False)
    start, descriptor, event = recorded()[:3]
    mine = {"run_start": made.start_doc["uid"], "uid": f"{made.start_doc['uid']}-d"}
    documents = [
        (start[0], made.start_doc),
        (descriptor[0], {**descriptor[1], **mine}),
        (event[0], {**event[1], "descriptor": mine["uid"], "uid": f"{mine['uid']}-e"}),
        ("stop", made.compose_stop(validate=False)),
    ]
    for name, doc in documents:
        for bad in garbage:
            patient.agent(*bad)
        patient.agent(name, doc)
    assert patient.agent.wait(WAIT_S)
    assert len(patient.events("descriptors")) == before + 1


def test_many_threads_at_once(watching):
    runs: dict[str, list[Document]] = {}
    of: dict[str, str] = {}
    for name, doc in recorded():
        run = doc["uid"] if name == "start" else doc.get("run_start") or of[doc["descriptor"]]
        of[doc["uid"]] = run
        runs.setdefault(run, []).append((name, doc))
    threads = []
    for k in range(4):
        for documents in runs.values():
            mine = [(name, _renamed(doc, f"-{k}")) for name, doc in documents]
            threads.append(threading.Thread(target=lambda d=mine: [watching.agent(*pair) for pair in d]))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watching.agent.wait(WAIT_S)
    watching.check()
    assert len(watching.named("start")) == 8
    parents = Counter(e["run_start"] for e in watching.named("descriptor") if e["name"] == "descriptors")
    assert set(parents.values()) == {1}
    assert len(watching.events("descriptors")) == 24


def _renamed(doc: dict[str, Any], suffix: str) -> dict[str, Any]:
    return {k: v + suffix if k in ("uid", "run_start", "descriptor") else v for k, v in doc.items()}


class Stalled:
    """A model whose first estimate waits until it is released."""

    def __init__(self) -> None:
        self._model = loaded_models()[0]
        self.reached, self.released = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def estimate(self, *args: Any) -> Any:
        self.reached.set()
        self.released.wait(WAIT_S)
        return self._model.estimate(*args)


def test_documents_beyond_the_queue_are_dropped_and_reported():
    stalled: Any = Stalled()
    with Watching(models=[stalled], serving={"queue": 4}) as watching:
        documents = recorded()
        for document in documents[:3]:
            watching.agent(*document)
        assert stalled.reached.wait(WAIT_S)
        for _ in range(20):
            watching.agent(*documents[3])
        watching.agent(*documents[5])  # a stop still finds room
        assert not watching.agent.wait(0.01)
        assert 5 <= watching.agent.unanswered["documents"] <= 8
        stalled.released.set()
        assert watching.agent.wait(WAIT_S)
        assert watching.agent.unanswered == {"documents": 0, "frames": 0}
    watching.check()
    (note,) = [q for q in watching.events("quality") if q["reason"] == "queue full"]
    assert note["detail"].startswith("16 documents dropped: the queue of 4")
    assert note["count"] == 16
    (lost,) = [q for q in watching.events("quality") if q["reason"] == "events lost"]
    assert lost["count"] == 1
    assert [e["frame_seq_num"] for e in watching.events("descriptors")] == [1, 2]
    assert watching.named("stop")[0]["exit_status"] == "success"


def test_what_is_given_up_is_counted():
    stalled: Any = Stalled()
    with Watching(models=[stalled]) as watching:
        documents = recorded()
        for document in documents[:3]:
            watching.agent(*document)
        assert stalled.reached.wait(WAIT_S)
        name, doc = documents[3]
        for number in range(20):
            watching.agent(name, {**doc, "uid": str(number), "seq_num": number + 2})
        assert not watching.agent.abandon(0)
        assert 21 <= watching.agent.unanswered["documents"] <= 23  # the start and the descriptor may be served
        stalled.released.set()
        assert watching.agent.close(WAIT_S)
        assert watching.agent.unanswered == {"documents": 20, "frames": 1}
    watching.check()
    assert watching.events("descriptors") == []


def test_documents_after_a_failure_are_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    stalled: Any = Stalled()
    with Watching(models=[stalled], serving={"max_batch": 1}) as watching:
        pipeline = watching.agent._pipeline
        for document in recorded()[:3]:
            watching.agent(*document)
        assert stalled.reached.wait(WAIT_S)
        failures = iter([OSError("no space left")])
        feed = pipeline.feed

        def fail_once(batch: Any) -> Any:
            if batch and (error := next(failures, None)) is not None:
                raise error
            return feed(batch)

        monkeypatch.setattr(pipeline, "feed", fail_once)
        for document in recorded()[3:]:
            watching.agent(*document)
        stalled.released.set()
        assert watching.agent.wait(WAIT_S)
        assert watching.agent.unanswered["documents"] == len(recorded()) - 3


FAILING = [
    (Pipeline, "plan"),
    (Inbox, "take_dropped"),
    (Source, "take_given_up"),
    (Source, "acknowledge"),
    (Journal, "accept"),
    (Source, "is_current"),
    (Pipeline, "close"),
    (Subscribers, "close"),
]


@pytest.mark.parametrize("place", FAILING, ids=lambda place: f"{place[0].__name__}.{place[1]}")
def test_an_agent_outlives_what_fails_in_its_loop(
    place: tuple[type, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    documents = recorded()
    half, failed = len(documents) // 2, list[int]()
    with capture_logs() as logs:
        journal, source = Journal(tmp_path / JOURNAL), Source()
        agent = XASAgent(load_config(CO), loaded_models(), journal=journal)
        told: list[Document] = []
        agent.subscribe(lambda name, doc: told.append((name, doc)))
        agent.acknowledge_to(source)
        agent.start()
        for k, (name, doc) in enumerate(documents):
            if k in (half, half + 1):
                assert agent.wait(WAIT_S)
            if k == half:
                failed = failing_once(monkeypatch, *place)
            agent(name, doc, {"place": k})
        assert agent.wait(WAIT_S)
        assert agent.alive
        assert agent.close(WAIT_S)
    assert failed
    assert [line for line in logs if line["log_level"] == "error"]
    acknowledged = [position["place"] for position, _ in source.told if position]
    if place[1] in ("accept", "is_current"):  # the batch was not served
        assert agent.unanswered["documents"] > 0
        assert max(acknowledged, default=-1) < half
        return
    assert agent.unanswered == {"documents": 0, "frames": 0}
    assert max(acknowledged) == len(documents) - 1
    if place != (Pipeline, "close"):
        uids = {d["uid"] for n, d in told if n == "descriptor" and d["name"] == "descriptors"}
        frames = [d["data"]["frame_uid"] for n, d in told if n == "event" and d["descriptor"] in uids]
        assert len(frames) == len(set(frames)) == 6


def failing_once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[int]:
    """Let a method fail at its first call from now on; return a list with an entry once it has."""
    real, failed = getattr(owner, name), list[int]()

    def fails(*args: Any, **options: Any) -> Any:
        if not failed:
            failed.append(1)
            raise RuntimeError("Broken")
        return real(*args, **options)

    monkeypatch.setattr(owner, name, fails)
    return failed


def test_a_source_that_can_wait_loses_nothing():
    stalled: Any = Stalled()
    with Watching(models=[stalled], serving={"queue": 4}) as watching:
        watching.agent.live = False
        sending = threading.Thread(target=lambda: [watching.agent(*document) for document in recorded()])
        sending.start()
        assert stalled.reached.wait(WAIT_S)
        stalled.released.set()
        sending.join(WAIT_S)
        assert not sending.is_alive()
        assert watching.agent.wait(WAIT_S)
    assert len(watching.events("descriptors")) == 6
    assert watching.events("quality") == []


def test_a_subscriber_that_blocks_delays_nobody():
    release, got = threading.Event(), []

    def blocks(name: str, doc: dict[str, Any]) -> None:
        release.wait(WAIT_S)
        got.append((name, doc))

    with capture_logs() as logs:
        with Watching(serving={"subscriber_queue": 30}) as watching:
            watching.agent.subscribe(blocks)
            for k in range(1, 5):
                for name, doc in recorded():
                    watching.agent(name, _renamed(doc, f"-{k}"))
                wait_until(lambda k=k: len(watching.named("stop")) == 2 * k)
            assert not watching.agent.wait(0.01)
            release.set()
            assert watching.agent.wait(WAIT_S)
        watching.check()
    assert len(watching.events("descriptors")) == 24
    (slow,) = [e for e in logs if e["event"].startswith("subscriber too slow")]
    assert slow["subscriber"].endswith("blocks")
    (told,) = [e for e in logs if e["event"] == "documents not delivered"]
    assert told["lost"] == len(watching.documents) - len(got) > 0
    received = {doc["uid"] for _, doc in got}
    assert [doc["uid"] for _, doc in watching.documents if doc["uid"] in received] == [doc["uid"] for _, doc in got]
    assert [n for n, _ in got if n != "event"] == [n for n, _ in watching.documents if n != "event"]


# ------------------------------------------------------------------ wait, close


def test_closing_ends_open_runs_and_later_documents_are_ignored(watching):
    documents = recorded()
    for document in documents[:4]:
        watching.agent(*document)
    watching.agent.close()
    watching.check()
    assert [e["frame_seq_num"] for e in watching.events("descriptors")] == [1, 2]
    assert watching.named("stop")[0]["exit_status"] == "abort"
    before = len(watching.documents)
    for document in documents:
        watching.agent(*document)
    assert watching.agent.wait(WAIT_S)
    watching.agent.close()
    assert len(watching.documents) == before


def test_closing_from_a_subscriber_does_not_wait_for_itself(watching):
    watching.agent.subscribe(lambda name, doc: watching.agent.close() if name == "stop" else None)
    for document in recorded():
        watching.agent(*document)
    assert watching.agent.ended(WAIT_S)
    watching.check()


def test_closed_while_others_still_call(watching):
    going = threading.Event()

    def call() -> None:
        while not going.is_set():
            for document in recorded():
                watching.agent(*document)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    watching.agent.close()
    assert watching.agent.wait(WAIT_S)
    going.set()
    for caller in callers:
        caller.join()
    watching.check()


def test_with_closes(RE):
    with XASAgent(load_config(CO), loaded_models()) as agent:
        RE.subscribe(agent)
        RE(count(detectors(), 1, md=MD))
    assert agent.ended(0)


# ------------------------------------------------------------------ config


@pytest.mark.parametrize("form", ["mapping", "path", "text"])
def test_from_config_takes_a_mapping_or_a_file(tmp_path, form):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(CO))
    source: Any = {"mapping": CO, "path": path, "text": str(path)}[form]
    with XASAgent.from_config(source) as agent:
        assert [m.name for m in agent.models] == ["co-k"]


def test_what_is_wrong_is_said_before_anything_runs(tmp_path):
    before = threading.active_count()
    with pytest.raises(ConfigError, match="unknown key modell"):
        XASAgent.from_config({"modell": {}})
    with pytest.raises(ModelError, match="no model 'xx-k'"):
        XASAgent.from_config({"model": {"use": ["xx-k"]}})
    with pytest.raises(ConfigError, match="no such config"):
        XASAgent.from_config(tmp_path / "none.yaml")
    assert threading.active_count() == before


def test_importing_the_package_does_not_import_torch_or_bluesky():
    code = (
        "import sys, xas_agent; print({'torch', 'bluesky', 'zmq'} & set(sys.modules), 'XASAgent' in dir(xas_agent))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "set()"


# ------------------------------------------------------------------ control


def rule(action: str) -> dict[str, Any]:
    """OS 3 in LiCoO2: high enough from the second frame on."""
    trigger = {"kind": "threshold", "descriptor": "OS", "above": 2.5, "dwell_frames": 2, "max_ood": None}
    return {"name": "oxidised", "trigger": trigger, "action": action}


def test_a_rule_stops_the_running_plan(RE):
    obeys = RunEngineControl(RE)
    with Watching(obeys, rules=[rule("stop")], control={"enabled": True, "allow": ["stop"]}) as watching:
        documents: list[Document] = []
        RE.subscribe(lambda name, doc: documents.append((name, doc)))
        RE.subscribe(watching.agent)
        with pytest.raises(RunEngineInterrupted):
            RE(count(detectors(), 2000, delay=0.05, md=MD))
        assert watching.agent.wait(WAIT_S)
        assert RE.state == "idle"
    obeys.close()
    watching.check()
    assert documents[-1][1]["exit_status"] == "success"
    measured = sum(name == "event" for name, _ in documents)
    assert 2 <= measured < 2000
    told = watching.events("decisions")
    assert [d["status"] for d in told] == ["proposed", "sent", "acknowledged"]
    assert told[-1]["status_reason"] == "stopped"
    assert len({d["id"] for d in told}) == 1
    assert "above 2.5" in told[0]["reason"]
    assert watching.documents[-1][0] == "stop"  # of one run, so every status came before it


@pytest.mark.parametrize("control", [{}, {"enabled": True, "allow": ["pause"]}])
def test_what_is_not_allowed_is_advice(RE, control):
    made = XASAgent.from_config(CO | {"rules": [rule("stop")], "control": control}, RE=RE)
    with capture_logs() as logs, made as agent:
        documents: list[Document] = []
        agent.subscribe(lambda name, doc: documents.append((name, doc)))
        RE.subscribe(agent)
        RE(count(detectors(), 4, md=MD))
        assert agent.wait(WAIT_S)
    answered = [line["log_level"] for line in logs if line["event"] == "decision answered"]
    assert answered == (["warning"] if control else [])  # a request that is not carried out must be seen
    statuses = [doc["data"]["status"] for name, doc in documents if name == "event" and "status" in doc["data"]]
    assert statuses == (["proposed", "rejected"] if control else ["proposed"])


# ------------------------------------------------------------------------ files


def test_frames_whose_file_lags_are_answered_once_it_comes(tmp_path):
    pytest.importorskip("h5py", reason="pip install 'xas-agent[assets]'")
    pytest.importorskip("bluesky.consolidators", reason="pip install 'xas-agent[assets]'")
    recording = shapes.diamond(tmp_path)
    file = tmp_path / "panda.h5"
    away = file.rename(tmp_path / "away")
    fields = {"relation": {"kind": "bragg", "d_spacing_ang": 3.1356}, **MD}
    with Watching(preset="diamond", fields=fields, assets={"wait_s": 30.0, "roots": (str(tmp_path),)}) as watching:
        for name, doc in recording.documents:
            watching.agent(name, doc)
        assert not watching.agent.wait(0.3)
        for name, doc in recorded()[: len(recorded()) // 2]:  # another run goes on meanwhile
            watching.agent(name, doc)
        wait_until(lambda: watching.events("descriptors"), WAIT_S)
        assert len({s["parent_uid"] for s in watching.named("start")}) == 1
        away.rename(file)
        assert watching.agent.wait(WAIT_S)
    watching.check()
    assert len(watching.events("descriptors")) == 3 + len(recording.sweeps)
    assert watching.events("quality") == []


@pytest.mark.parametrize(
    ("alignment", "says"),
    [
        ({"self_absorption": {"formula": "LiNiO2"}}, "found LiNiO2, expected one with Co"),
        ({"self_absorption": {"formula": "Li(Co"}}, "found no compound"),
        ({"self_absorption": {}}, "either formula or alpha"),
        ({"self_absorption": {"formula": "LiCoO2", "angle_in_deg": 0}}, "greater than 0"),
        ({"normalisation": {"mode": "mbak"}}, "mback"),
    ],
)
def test_alignment_that_cannot_be_done_is_refused_before_anything_runs(alignment, says):
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        Watching(alignment=alignment)
    assert "alignment." in str(refused.value)


@pytest.mark.parametrize(
    "normalisation",
    [{"mode": "mback"}, {"mode": "area"}, {"mode": "none"}, {"nvict": 3}, {"nnorm": 1}, {"flatten": False}],
)
def test_each_normalisation_serves_a_stream(normalisation):
    with Watching(alignment={"normalisation": normalisation}) as watching:
        for document in recorded():
            watching.agent(*document)
        assert watching.agent.wait(WAIT_S)
    assert len(watching.events("descriptors")) == 6, watching.events("quality")


@pytest.mark.parametrize("journaled", [False, True])
def test_damaged_documents_cost_no_result(journaled: bool, tmp_path: Path):
    found = damaged_documents.campaign(300, 3, Journal(tmp_path / JOURNAL) if journaled else None)
    assert not [what for what, number in found.items() if number and what.startswith(("escaped", "wrong", "logged"))]
    assert found["documents"] >= 300


@pytest.mark.parametrize("doc", [None, 3, "x" * 10, [1], np.zeros(3)])
def test_an_event_that_is_no_mapping_is_set_aside_like_any_other(watching, doc):
    with capture_logs() as logs:
        watching.agent("event", doc)
        assert watching.agent.wait(WAIT_S)
    assert not [line for line in logs if line["log_level"] == "error"]
