"""Joining of streams with separate clocks."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import capture_logs
from pydantic import ValidationError
from streams import Staged

from xas_agent.agent.fields.monochromator import Bragg, Polynomial
from xas_agent.agent.fields.resolve import StreamFields, UnreadableStream, resolve
from xas_agent.agent.fields.settings import FieldSettings
from xas_agent.agent.stream.deadlines import PATIENCE_S
from xas_agent.agent.stream.fly import FlyJoiner, FlySettings, Trace, join_columns, merge_tables
from xas_agent.agent.types.frame import Received, SetAside
from xas_agent.agent.types.run import RunDocument, RunInfo

TABLES = FlySettings(
    signals=Trace(stream="apb", columns=("t", "i0", "it"), time=("t",)),
    axis=Trace(stream="enc", columns=("s", "ns", "counts"), time=("s", "ns"), counter_bits=24),
    offsets={"i0": "ch1_offset"},
    offset_scale=10.0,
    gains={"it": "ch2_gain"},
)


def documents(uid: str = "run", m: int = 50, **start: Any) -> list[tuple[str, dict[str, Any]]]:
    t = 100.0 + np.arange(m)
    apb = np.column_stack([t, 2 * t + 20, 3 * t])
    enc = np.column_stack([t - 0.5, np.full(m, 0.5e9), (-1000 * t) % 2**24])
    docs: list[tuple[str, dict[str, Any]]] = [
        ("start", {"uid": uid, "time": 0.0, "ch1_offset": "2", "ch2_gain": 1, **start})
    ]
    for name, table in (("apb", apb), ("enc", enc)):
        keys = {name: {"source": "", "dtype": "array", "shape": list(table.shape)}}
        docs.append(("descriptor", {"uid": uid + name, "run_start": uid, "name": name, "data_keys": keys, "time": 0}))
        event = {"uid": f"{uid}{name}1", "descriptor": uid + name, "seq_num": 1, "time": 5.0, "data": {name: table}}
        docs.append(("event", event))
    return [*docs, ("stop", {"uid": "stop", "run_start": uid, "num_events": {"apb": 1, "enc": 1, "baseline": 2}})]


def run(docs: Any, joiner: Staged | None = None, at: float = 10.0) -> list[Any]:
    joiner = joiner or Staged(FlyJoiner(TABLES, FieldSettings()))
    return [out for name, doc in docs for out in joiner(Received(name, doc, at))]


def test_two_clocks_become_one_event_before_the_stop() -> None:
    start, descriptor, event, stop = run(documents())
    assert [d.name for d in (start, descriptor, event, stop)] == ["start", "descriptor", "event", "stop"]
    assert stop.doc["num_events"] == {"baseline": 2, "fly": 1}
    data = event.doc["data"]
    np.testing.assert_allclose(data["time"], 100.0 + np.arange(50))
    np.testing.assert_allclose(data["i0"], 2 * data["time"])  # an offset of 2 mV, 10 counts each, is subtracted
    np.testing.assert_allclose(data["it"], 0.3 * data["time"])
    np.testing.assert_allclose(data["counts"], -1000 * data["time"])
    assert descriptor.doc["data_keys"]["it"]["shape"] == [50]


def test_joined_once_for_repeated_and_late_documents() -> None:
    joiner = Staged(FlyJoiner(TABLES, FieldSettings()))
    docs = documents()
    early = [d for d in docs if d[1].get("uid") != "runenc1"]
    assert [d.name for d in run(early, joiner)] == ["start"]
    assert joiner.waiting
    assert not joiner.poll(10.0 + 0.9 * PATIENCE_S)
    (last,) = (d for d in docs if d[1].get("uid") == "runenc1")
    assert [d.name for d in run([last], joiner)] == ["descriptor", "event", "stop"]
    assert not joiner.waiting
    assert [d.name for d in run(docs[1:-1] * 2, joiner)] == []


def test_missing_stream_is_reported() -> None:
    joiner = Staged(FlyJoiner(TABLES, FieldSettings()))
    assert [d.name for d in run([d for d in documents() if "enc" not in str(d[1].get("uid"))], joiner)] == ["start"]
    lost, aside, stop = joiner.poll(10.0 + PATIENCE_S)
    assert isinstance(lost, SetAside)
    assert lost.detail == "the only event of stream enc, and its descriptor, did not arrive"
    assert isinstance(aside, SetAside)
    assert (aside.reason, aside.run_uid) == ("fly stream missing", "run")
    assert "no axis of streams 'enc'" in aside.detail
    assert isinstance(stop, Received)
    assert stop.doc["num_events"] == {"baseline": 2, "enc": 1}


@pytest.mark.parametrize("announced", [True, False])
def test_lost_part_of_a_table_is_reported_and_not_interpolated(announced: bool) -> None:
    docs = documents()
    whole = docs[4][1]["data"]["enc"]
    parts = [
        ("event", {**docs[4][1], "uid": f"enc{k}", "seq_num": k, "data": {"enc": part}})
        for k, part in enumerate(np.split(whole, 5), 1)
        if k != 3
    ]
    docs[5][1]["num_events"] = {"apb": 1, "enc": 5} if announced else "five"
    joiner = Staged(FlyJoiner(TABLES, FieldSettings()))
    aside, stop = [*run([*docs[:4], *parts, docs[5]], joiner), *joiner.poll(10.0 + PATIENCE_S)][1:]
    assert isinstance(aside, SetAside)
    assert (aside.reason, aside.detail) == ("events lost", "1 of 5 events of stream enc did not arrive")
    assert isinstance(stop, Received)
    assert stop.name == "stop"


def test_clocks_without_overlap_are_reported() -> None:
    docs = documents()
    docs[4][1]["data"]["enc"] = docs[4][1]["data"]["enc"] + [1000.0, 0.0, 0.0]
    (aside,) = (out for out in run(docs) if isinstance(out, SetAside))
    assert aside.reason == "fly streams do not fit"
    assert "not recorded at the same time" in aside.detail


def test_extreme_gain_is_reported() -> None:
    aside = next(out for out in run(documents(ch2_gain=1000)) if isinstance(out, SetAside))
    assert aside.reason == "fly streams do not fit"


def test_table_with_another_shape_is_reported() -> None:
    docs = documents()
    docs[2][1]["data"]["apb"] = docs[2][1]["data"]["apb"][:, :2]
    (aside,) = (out for out in run(docs) if isinstance(out, SetAside))
    assert aside.detail == "apb has 2 columns; expected 3: t, i0, it"


@pytest.mark.parametrize("start", [{"xas_agent": True}, {"plan_name": "dark"}])
def test_skipped_runs_pass_unchanged(start: dict[str, Any]) -> None:
    docs = documents(**start)
    assert [(d.name, d.doc) for d in run(docs)] == docs


def test_run_without_stop_is_joined_at_the_end() -> None:
    joiner = Staged(FlyJoiner(TABLES, FieldSettings()))
    run(documents()[:-1], joiner)
    assert [d.name for d in joiner.finish() if isinstance(d, Received)] == ["descriptor", "event"]


@settings(max_examples=60, deadline=None)
@given(rates=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), padding=st.integers(0, 5), seed=st.integers(0, 99))
def test_straight_line_is_preserved_for_any_two_clocks(rates: tuple[float, float], padding: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    clocks = [np.sort(np.append(rng.uniform(10, 20, int(100 * rate)), [10.0, 20.0])) for rate in rates]
    tables = []
    for t in clocks:
        table = np.column_stack([t, 5 * t, 7 - t])
        tables.append(rng.permutation(np.concatenate([table, table[:1], np.zeros((padding, 3))])))
    trace = Trace(stream="a", columns=("t", "i0", "it"), time=("t",))
    other = Trace(stream="b", columns=("t", "e", "f"), time=("t",))
    found = join_columns(merge_tables({"a": [tables[0]]}, trace), merge_tables({"b": [tables[1]]}, other))
    assert (np.diff(found["time"]) > 0).all()
    for name, line in (("i0", 5 * found["time"]), ("it", 7 - found["time"]), ("e", 5 * found["time"])):
        np.testing.assert_allclose(found[name], line, atol=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [{"stream": "("}, {"stream": "a", "columns": ["i0"]}, {"stream": "a", "columns": ["t"], "time": ["s"]}],
)
def test_impossible_trace_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Trace.model_validate(wrong)


# -------------------------------------------------------------- position → energy


@given(st.floats(2500, 60000), st.floats(-5, 5), st.sampled_from([1.0, -1.0, 360000.0]))
def test_bragg_round_trip(energy: float, offset: float, counts: float) -> None:
    bragg = Bragg(d_spacing_ang=3.1356, counts_per_degree=counts)
    assert float(bragg.energy(bragg.position(energy, offset), offset)) == pytest.approx(energy, rel=1e-9)


def test_bragg_with_the_encoder_counts_of_iss() -> None:
    """NSLS-II ISS: E = −12398.42 / (2 · 3.1356 · sin(encoder / 360000 + angle_offset)), at negative angles."""
    counts, offset = -5_300_000.0, 0.35
    theirs = -12398.42 / (2 * 3.1356 * np.sin(np.radians(counts / 360000 + offset)))
    assert float(Bragg(d_spacing_ang=3.1356, counts_per_degree=360000).energy(counts, offset)) == pytest.approx(
        theirs, rel=1e-7
    )


def test_position_needs_a_relation_and_its_offset() -> None:
    number = {"source": "", "dtype": "number", "shape": []}
    descriptor = {"uid": "d", "name": "primary", "data_keys": dict.fromkeys(("slit", "I0", "It"), number)}
    found = resolve(FieldSettings(position="slit"), descriptor, {})
    assert isinstance(found, UnreadableStream)
    assert found.reason == "no energy relation"
    bragg = Bragg(d_spacing_ang=3.1356, offset_from="angle_offset")
    found = resolve(FieldSettings(position="slit", relation=bragg), descriptor, {})
    assert isinstance(found, UnreadableStream)
    assert "'angle_offset'" in found.detail
    found = resolve(FieldSettings(position="slit", relation=bragg), descriptor, {"angle_offset": ("1.0",)})
    assert isinstance(found, StreamFields)
    assert found.in_ev(10.0) == pytest.approx(12398.4198 / (2 * 3.1356 * np.sin(np.radians(11.0))))
    line = Polynomial(kind="polynomial", coefficients_ev=(7000.0, 2.0))
    found = resolve(FieldSettings(position="slit", relation=line), descriptor, {})
    assert isinstance(found, StreamFields)
    assert found.in_ev(10.0) == pytest.approx(7020.0)


def test_a_malformed_document_is_passed_on_with_one_warning() -> None:
    joiner = FlyJoiner(TABLES, FieldSettings())
    malformed = RunDocument(RunInfo("run"), "descriptor", {"name": "apb"}, 0.0)
    with capture_logs() as logs:
        assert [*joiner(malformed), *joiner(malformed)] == [malformed, malformed]
    assert [(log["log_level"], log["error"]) for log in logs] == [
        ("warning", "KeyError: 'uid'"),
        ("debug", "KeyError: 'uid'"),
    ]
