"""The documents of the agent's own run are valid for any frames."""

import json
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import event_model
import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from valid import check_document

from xas_agent.agent.publish import (
    PAGES_ABOVE_HZ,
    AgentRun,
    FrameRows,
    Provenance,
    come_in_pages,
    events_of,
)
from xas_agent.agent.types.decision import Decision
from xas_agent.agent.types.estimate import DescriptorEstimate, Estimate
from xas_agent.agent.types.estimates import Estimates
from xas_agent.agent.types.frame import Document, Frame, SetAside
from xas_agent.agent.types.lines import Lines, nodes
from xas_agent.agent.types.reasons import Flag, Reason
from xas_agent.agent.types.scan import Scan

WATCHED = {"uid": "watched", "time": 100.0, "scan_id": 7, "sample_uid": "cell", "data_session": "pass-1"}
SCAN = Scan("cell", "LiCoO2", 7, "run.dat")
NAMES = {"sample": "LiCoO2", "scan_id": 7, "file": "run.dat", "element": "Co"}
GRID = np.linspace(-10, 70, 5)
PROVENANCE = Provenance(
    model_name="co_k",
    model_sha256="a" * 64,
    config_sha256="b" * 64,
    versions={"xas-agent": "0.1.0"},
    element="Co",
    edge="K",
    hidden=frozenset({"NNRS"}),
    units={"OS": "e", "NNRS": "Å", "voltage": "V"},
    grid=GRID,
)
ESTIMATE = Estimate(
    {
        "OS": DescriptorEstimate(3.4, 3.3, 3.5, value=3.0, p=0.6, sd_frame=0.05),
        "NNRS": DescriptorEstimate(0.02, 0.01, 0.03, sd_frame=0.002),
    },
    ood_score=0.2,
    flags=(Flag.FOIL_HELD, Flag.GLITCHES_REPAIRED),
)
QUANTITIES = {"e0_ev": 7721.5, "edge_step": 0.9, "noise": 0.004, "energy_shift_ev": 1.5}
DECISION = Decision(
    "id-1", "half", "stop", "OS 3.52 e", "watched", 130.0, 0.9, (("f1", 3.52),), scan=SCAN, args={"a": [1]}
)


def frame(n: int = 1, time: float = 110.0, /, **readings: float) -> Frame:
    return Frame(f"f{n}", "watched", n, time, GRID + 7709, GRID * 0, scan=SCAN, readings=readings)


class Run:
    """An AgentRun and the documents that it emitted."""

    def __init__(self, start: dict[str, Any] = WATCHED, **options: Any) -> None:
        self.documents: list[Document] = []
        options.setdefault("scan", SCAN)
        self.run = AgentRun(start, PROVENANCE, lambda name, doc: self.documents.append((name, doc)), **options)

    def named(self, name: str) -> list[dict[str, Any]]:
        return [doc for each, doc in self.documents if each == name]

    def events(self, stream: str) -> list[dict[str, Any]]:
        uids = {doc["uid"] for doc in self.named("descriptor") if doc["name"] == stream}
        return [doc for doc in self.named("event") if doc["descriptor"] in uids]


def check(documents: list[Document]) -> None:
    """Check the schemas, in memory and after serialisation, and the relations between documents."""
    for name, doc in documents:
        check_document(name, doc)
        check_document(name, json.loads(json.dumps(doc, cls=event_model.NumpyEncoder)))
        packed = msgpack.packb(doc, default=msgpack_numpy.encode)
        check_document(name, msgpack.unpackb(packed, object_hook=msgpack_numpy.decode))
    router = event_model.SingleRunDocumentRouter()
    counts: Counter[str] = Counter()
    described: dict[str, dict[str, Any]] = {}
    for name, doc in documents:
        router(name, doc)
        if name == "descriptor":
            assert doc["uid"] not in described
            described[doc["uid"]] = doc
        elif name == "event":
            stream = described[doc["descriptor"]]["name"]
            counts[stream] += 1
            assert doc["seq_num"] == counts[stream]
            check_data(doc, described[doc["descriptor"]]["data_keys"])
    names = [name for name, _ in documents]
    assert (names[0], names[-1]) == ("start", "stop")
    assert names.count("start") == names.count("stop") == 1
    assert documents[-1][1]["num_events"] == counts
    assert documents[-1][1]["time"] >= max(doc["time"] for _, doc in documents)
    assert len({doc["uid"] for _, doc in documents}) == len(documents)


def check_data(event: dict[str, Any], keys: dict[str, Any]) -> None:
    kinds = {"number": float, "integer": int, "string": str, "array": np.ndarray}
    assert list(event["data"]) == list(event["timestamps"]) == list(keys)
    for name, value in event["data"].items():
        assert type(value) is kinds[keys[name]["dtype"]]
        assert keys[name]["shape"] == list(np.shape(value))
        if "dtype_numpy" in keys[name]:
            assert np.asarray(value).dtype == np.dtype(keys[name]["dtype_numpy"])


def test_start_has_the_provenance():
    run = Run()
    [start] = run.named("start")
    assert start["xas_agent"] is True
    assert start["plan_name"] == "xas_agent"
    assert start["parent_uid"] == "watched"
    assert start["uid"] == run.run.uid != "watched"
    assert start["time"] == 100.0
    assert start["model"] == {"name": "co_k", "sha256": "a" * 64}
    assert start["config_sha256"] == "b" * 64
    assert (start["element"], start["edge"]) == ("Co", "K")
    assert (start["sample_uid"], start["scan_id"], start["data_session"]) == ("cell", 7, "pass-1")
    assert (start["series"], start["sample_name"]) == ("cell", "LiCoO2")


def test_run_without_a_sample_is_its_own_series():
    run = Run({"uid": "watched", "time": 100.0}, scan=Scan())
    run.run.frame(Frame("f1", "watched", 1, 110.0, GRID + 7709, GRID * 0), QUANTITIES, ESTIMATE, None, 1.0)
    run.run.close()
    check(run.documents)
    [start], [event] = run.named("start"), run.events("descriptors")
    assert (start["series"], start["scan_id"], "sample_name" in start) == ("watched", 0, False)
    unknown = {"sample": "", "scan_id": 0, "file": "", "element": "Co"}
    assert {key: event["data"][key] for key in NAMES} == unknown


def test_descriptors_and_spectra_of_a_frame():
    run = Run()
    run.run.frame(frame(3, voltage=3.9), QUANTITIES, ESTIMATE, GRID.astype(np.float32), latency_ms=4.5)
    run.run.close()
    check(run.documents)
    [event] = run.events("descriptors")
    assert event["time"] == 110.0
    assert event["seq_num"] == 1
    assert event["data"] == {
        "OS": 3.0,
        "OS_p": 0.6,
        "OS_mean": 3.4,
        "OS_lo": 3.3,
        "OS_hi": 3.5,
        "OS_sd_frame": 0.05,
        "NNRS_mean": 0.02,
        "NNRS_lo": 0.01,
        "NNRS_hi": 0.03,
        "NNRS_sd_frame": 0.002,
        "ood_score": 0.2,
        "e0_ev": 7721.5,
        "edge_step": 0.9,
        "noise": 0.004,
        "latency_ms": 4.5,
        "frame_uid": "f3",
        "frame_seq_num": 3,
        "frame_time": 110.0,
        **NAMES,
        "flags": "foil held, glitches repaired",
        "energy_shift_ev": 1.5,
        "voltage": 3.9,
    }
    assert run.named("descriptor")[0]["hints"]["xas_agent"]["fields"] == ["OS_mean"]
    keys = run.named("descriptor")[0]["data_keys"]
    units = {name: keys[name]["units"] for name in ("OS_mean", "NNRS_lo", "e0_ev", "latency_ms", "voltage")}
    assert units == {"OS_mean": "e", "NNRS_lo": "Å", "e0_ev": "eV", "latency_ms": "ms", "voltage": "V"}
    [spectrum] = run.events("spectra")
    np.testing.assert_array_equal(spectrum["data"]["spectrum"], GRID.astype(np.float32))
    assert {key: spectrum["data"][key] for key in NAMES} == NAMES
    configuration = run.named("descriptor")[1]["configuration"]["xas_agent"]["data"]
    assert configuration["energy_relative_ev"] == GRID.tolist()


def test_spectrum_is_a_copy():
    run, batch = Run(), np.zeros((2, 5))
    run.run.frame(frame(), QUANTITIES, ESTIMATE, batch[0], 1.0)
    batch += 1
    assert not run.events("spectra")[0]["data"]["spectrum"].any()


def test_spectra_may_be_switched_off():
    run = Run(spectra=False)
    run.run.frame(frame(), QUANTITIES, ESTIMATE, GRID, 1.0)
    assert run.events("spectra") == []


def test_spectrum_as_measured_and_a_new_descriptor_for_another_number_of_points():
    run = Run(spectra=False)
    measured = [(40, True), (40, False), (60, False), (40, True)]
    for n, (points, foil) in enumerate(measured, 1):
        energy, mu = np.linspace(7600, 8000, points), np.linspace(0.1, 1.2, points)
        scan = Frame(f"f{n}", "watched", n, 100.0 + n, energy, mu, mu / 2 if foil else None, scan=SCAN)
        lines = Lines(mu[nodes(points)] / 3, mu[nodes(points)] + 1, 7720.5, 7709.5 if foil else np.nan)
        run.run.frame(scan, QUANTITIES, ESTIMATE, None, 1.0, lines)
    run.run.close()
    check(run.documents)
    events = run.events("measured")
    assert [(len(event["data"]["mu"]), "reference" in event["data"]) for event in events] == measured
    assert sum(doc["name"] == "measured" for doc in run.named("descriptor")) == 3
    data = events[0]["data"]
    np.testing.assert_array_equal(data["energy"], np.linspace(7600, 8000, 40))
    np.testing.assert_array_equal(data["line_energy"], data["energy"][nodes(40)])
    np.testing.assert_array_equal(data["post_edge"], data["mu"][nodes(40)] + 1)
    assert (data["e0_measured_ev"], data["reference_e0_ev"], data["edge_step"]) == (7720.5, 7709.5, 0.9)
    assert (data["frame_uid"], data["sample"]) == ("f1", "LiCoO2")


def test_probabilities_of_the_classes():
    run = Run()
    known = DescriptorEstimate(3.4, 3.3, 3.5, 3.0, 0.6, {"2": 0.1, "3": 0.6, "4": 0.3})
    run.run.frame(frame(), QUANTITIES, Estimate({**ESTIMATE.descriptors, "OS": known}, 0.2), None, 1.0)
    run.run.close()
    check(run.documents)
    [event], [descriptor] = run.events("descriptors"), run.named("descriptor")
    assert event["data"]["OS_probabilities"].tolist() == [0.1, 0.6, 0.3]
    assert descriptor["configuration"]["xas_agent"]["data"] == {"OS_classes": [2.0, 3.0, 4.0]}


def test_new_reading_makes_a_new_descriptor_and_the_old_one_is_used_again():
    run = Run(spectra=False)
    for n, readings in enumerate(({}, {"voltage": 3.9}, {}, {"voltage": 4.0}), 1):
        run.run.frame(frame(n, **readings), QUANTITIES, ESTIMATE, None, 1.0)
    run.run.close()
    check(run.documents)
    assert len(run.named("descriptor")) == 2
    assert [event["seq_num"] for event in run.events("descriptors")] == [1, 2, 3, 4]
    assert run.named("stop")[0]["num_events"] == {"descriptors": 4}


def test_readings_have_their_units():
    run = Run(spectra=False)
    measured = replace(frame(temperature=300.0, ratio=0.5), reading_units={"temperature": "degC"})
    run.run.frame(measured, QUANTITIES, ESTIMATE, None, 1.0)
    keys = run.named("descriptor")[0]["data_keys"]
    assert (keys["temperature"]["units"], keys["ratio"]["units"]) == ("degC", None)


def test_reading_with_the_name_of_a_result():
    run = Run()
    run.run.frame(frame(OS_mean=1.0, reading_OS_mean=2.0, energy_shift_ev=3.0), QUANTITIES, ESTIMATE, None, 1.0)
    run.run.close()
    check(run.documents)
    data = run.events("descriptors")[0]["data"]
    assert (data["OS_mean"], data["energy_shift_ev"]) == (3.4, 1.5)
    assert {data[k] for k in data if k.startswith("reading_")} == {1.0, 2.0, 3.0}


def test_quantity_that_alignment_did_not_give_is_nan():
    run = Run()
    run.run.frame(frame(), {"e0_ev": 7721.0}, ESTIMATE, None, 1.0)
    assert np.isnan(run.events("descriptors")[0]["data"]["noise"])


def test_decision_and_its_status():
    run = Run()
    run.run.decision(DECISION)
    run.run.close()
    check(run.documents)
    [event] = run.events("decisions")
    assert event["time"] == 130.0
    assert event["data"]["status"] == "proposed"
    assert {key: event["data"][key] for key in NAMES} == NAMES
    assert json.loads(event["data"]["args"]) == {"a": [1]}
    assert json.loads(event["data"]["evidence"]) == [["f1", 3.52]]


def test_set_aside():
    run = Run()
    run.run.set_aside(SetAside("watched", "f9", 120.0, "too few points", "7 of 20", 9, "f9.dat"))
    run.run.set_aside(SetAside("watched", "e1", 121.0, "no descriptor", count=3))
    run.run.close()
    check(run.documents)
    assert [event["data"] for event in run.events("quality")] == [
        {
            **{"uid": "f9", "reason": "too few points", "detail": "7 of 20", "frame_seq_num": 9, "count": 1},
            **{**NAMES, "file": "f9.dat"},
        },
        {"uid": "e1", "reason": "no descriptor", "detail": "", "frame_seq_num": 0, "count": 3, **NAMES},
    ]


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        ("success", "", ""),
        ("abort", "", "the watched run ended with abort"),
        ("fail", "beam dump", "the watched run ended with fail: beam dump"),
    ],
)
def test_stop_follows_the_watched_run(status: str, reason: str, said: str):
    run = Run()
    run.run.close(status, reason, time=150.0)
    [stop] = run.named("stop")
    assert (stop["exit_status"], stop["reason"], stop["time"]) == (status, said, 150.0)
    check(run.documents)


def test_stop_with_an_unknown_status():
    run = Run()
    run.run.close("exploded")
    assert run.named("stop")[0]["exit_status"] == "fail"
    assert "'exploded'" in run.named("stop")[0]["reason"]
    check(run.documents)


def test_nothing_is_emitted_after_the_stop():
    run = Run()
    run.run.close()
    run.run.close("fail", "again")
    run.run.frame(frame(), QUANTITIES, ESTIMATE, GRID, 1.0)
    run.run.decision(DECISION)
    run.run.set_aside(SetAside("watched", "f9", 120.0, "too few points"))
    assert [name for name, _ in run.documents] == ["start", "stop"]


def test_metadata_of_the_wrong_type_is_not_copied():
    run = Run({"uid": "watched", "time": 5, "scan_id": "seven", "sample_uid": 3, "data_session": None})
    run.run.close()
    check(run.documents)


floats = st.floats() | st.integers(-5, 5)
names = st.sampled_from(["voltage", "OS_mean", "noise", "a.b/c", "frame_uid", "reading_OS_mean"]) | st.text(
    max_size=5
)


@st.composite
def described(draw: st.DrawFn) -> DescriptorEstimate:
    mean, lo, hi = draw(floats), draw(floats), draw(floats)
    if draw(st.booleans()):
        return DescriptorEstimate(mean, lo, hi)
    return DescriptorEstimate(mean, lo, hi, value=draw(floats), p=draw(st.none() | st.floats(0, 1)))


times = st.floats(0, 2e9)
frames = st.tuples(
    st.just("frame"),
    times,
    st.dictionaries(names, floats | st.just(np.float32(1.5)), max_size=3),
    st.dictionaries(st.sampled_from(["e0_ev", "noise", "shift_ev", "OS_mean"]), floats, max_size=3),
    st.dictionaries(st.sampled_from(["OS", "CN", "NNRS"]), described(), max_size=3),
    st.none() | st.sampled_from([np.zeros(5, np.float32), np.full(7, np.nan)]),
)
decisions = st.tuples(
    st.just("decision"),
    times,
    st.sampled_from(["proposed", "sent", "acknowledged", "rejected", "expired"]),
    st.dictionaries(st.text(max_size=3), st.none() | floats | st.text(max_size=3), max_size=2),
)
notes = st.tuples(st.just("note"), times, st.text(max_size=5), st.none() | st.integers(0, 10**6))


@given(
    st.lists(frames | decisions | notes, max_size=12),
    st.sampled_from(["success", "abort", "fail"]),
    st.text(max_size=5),
)
@example([("frame", 0.0, {}, {}, {}, None), ("frame", 0.0, {"n": np.float32(1.5)}, {}, {}, None)], "success", "")
@settings(max_examples=30, deadline=None)
def test_any_calls_give_a_valid_run(calls: list[tuple], exit_status: str, reason: str):
    run = Run()
    expected: dict[str, int] = defaultdict(int)
    for n, (kind, time, *rest) in enumerate(calls, 1):
        if kind == "frame":
            readings, quantities, descriptors, aligned = rest
            estimate = Estimate(descriptors, ood_score=0.1)
            run.run.frame(frame(n, time, **readings), quantities, estimate, aligned, 1.0)
            expected["descriptors"] += 1
            if aligned is not None:
                expected["spectra"] += 1
        elif kind == "decision":
            status, args = rest
            evidence = (("f", 1.0),)
            run.run.decision(
                Decision(f"d{n}", "r", "stop", "why", "watched", time, 0.5, evidence, status, "", SCAN, args)
            )
            expected["decisions"] += 1
        else:
            text, seq_num = rest
            run.run.set_aside(SetAside("watched", text, time, text, text, seq_num))
            expected["quality"] += 1
    run.run.close(exit_status, reason)
    check(run.documents)
    assert run.named("stop")[0]["num_events"] == expected


# ------------------------------------------------------------------------ pages

NOTE = SetAside("watched", "n1", 110.0, Reason.NAN_IN_DATA, "", 3)


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


def rows(frames: list[Frame], estimates: list[Estimate], spectra: np.ndarray | None, measured: bool) -> FrameRows:
    n = len(frames)
    quantities = {name: value + np.arange(float(n)) for name, value in QUANTITIES.items()}
    curve = np.arange(float(n * len(nodes(5)))).reshape(n, -1)
    lines = Lines(curve, curve + 1, 7720.0 + np.arange(n), np.full(n, 7709.0)) if measured else None
    return FrameRows(frames, quantities, Estimates.of(estimates), spectra, np.arange(float(n)), lines)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sets(st.sampled_from(["voltage", "spectrum", "measured", "note"])))),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_frames_together_give_the_documents_of_frames_one_by_one(calls, paged):
    together, alone = Run(), Run()
    for k, (n, kinds) in enumerate(calls):
        readings = {"voltage": 3.7 + k} if "voltage" in kinds else {}
        frames = [frame(10 * k + i, 110.0 + 10 * k + i, **readings) for i in range(n)]
        estimates = [replace(ESTIMATE, ood_score=0.1 * i) for i in range(n)]
        spectra = np.arange(5.0 * n).reshape(n, 5) if "spectrum" in kinds else None
        made = rows(frames, estimates, spectra, "measured" in kinds)
        together.run.frames(made, paged=paged)
        for i in range(n):
            row = None if made.lines is None else made.lines
            line = None if row is None else Lines(row.pre_edge[i], row.post_edge[i], 7720.0 + i, 7709.0)
            quantities = {name: values[i] for name, values in made.quantities.items()}
            spectrum = None if spectra is None else spectra[i]
            alone.run.frame(frames[i], quantities, estimates[i], spectrum, float(i), line)
        if "note" in kinds:
            together.run.set_aside(NOTE)
            alone.run.set_aside(NOTE)
    together.run.close()
    alone.run.close()
    assert len(together.named("event_page")) <= 3 * len(calls) * paged
    check(unpacked(together.documents))
    assert by_stream(unpacked(together.documents)) == by_stream(alone.documents)
    if not paged:
        kinds_of = [(name, doc.get("seq_num")) for name, doc in together.documents if name != "descriptor"]
        assert kinds_of == [(name, doc.get("seq_num")) for name, doc in alone.documents if name != "descriptor"]
    for page in together.named("event_page"):
        check_document("event_page", page)
        theirs = [dict(event) for event in event_model.unpack_event_page(page)]
        assert [e["uid"] for e in theirs] == [e["uid"] for e in events_of(page)]


def test_an_event_of_a_page_keeps_no_other_rows():
    made = Run()
    made.run.frames(rows([frame(1), frame(2)], [ESTIMATE] * 2, np.zeros((2, 5)), measured=True), paged=True)
    for page in made.named("event_page"):
        for event in events_of(page):
            arrays = [value for value in event["data"].values() if isinstance(value, np.ndarray)]
            assert all(array.base is None for array in arrays)


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
