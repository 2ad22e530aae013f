"""Hostile and endless documents: the agent's work, notes and memory stay bounded."""

import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from made_runs import Made
from made_runs import feed as feed_made
from streams import Frames

from xas_agent.agent.fields import FieldSettings, energy_candidates
from xas_agent.agent.fields.resolve import MAX_ENERGY_CANDIDATES, MAX_READINGS, StreamFields, resolve
from xas_agent.agent.stream.book import MAX_DESCRIPTORS
from xas_agent.agent.stream.columns import MAX_SPECTRUM_POINTS
from xas_agent.agent.stream.frames import Thinning
from xas_agent.agent.stream.held import MAX_HELD_BYTES
from xas_agent.agent.stream.records import SHARES, RunRecord, StreamRecord, least_needed
from xas_agent.agent.stream.runs import MAX_OPEN_RUNS, MAX_UID_LENGTH
from xas_agent.agent.stream.sequence import (
    MAX_NUMBERS_AHEAD,
    MAX_SWEEP_BYTES,
    PointBuffer,
    ScanPoint,
    SequenceNumbers,
)
from xas_agent.agent.stream.spectrum_stream import MAX_ANSWERED
from xas_agent.agent.stream.sweeps import MAX_SWEEPS, split_sweeps
from xas_agent.agent.types import Frame, Reason, SetAside, size_of

NUMBER = {"source": "SIM", "dtype": "number", "shape": []}
KEYS = ("energy", "I0", "It")


def array(points: int) -> dict[str, Any]:
    return {"source": "SIM", "dtype": "array", "shape": [points]}


def start(uid: str) -> tuple[str, dict[str, Any]]:
    return "start", {"uid": uid, "time": 1.0, "element": "Co", "edge": "K"}


def descriptor(run: str, keys: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    keys = keys or dict.fromkeys(KEYS, NUMBER)
    return "descriptor", {"uid": f"{run}-d", "run_start": run, "time": 1.0, "name": "primary", "data_keys": keys}


def event(run: str, seq: int, data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    doc = {"uid": f"{run}-{seq}", "descriptor": f"{run}-d", "seq_num": seq, "time": float(seq), "data": data}
    return "event", {**doc, "timestamps": {}}


def point(run: str, seq: int) -> tuple[str, dict[str, Any]]:
    return event(run, seq, {"energy": 7600.0 + 4 * seq, "I0": 1.0, "It": 0.5 + 0.001 * seq})


def feed(reader: Frames, *documents: tuple[str, dict[str, Any]]) -> list[Frame | SetAside]:
    return [out for name, doc in documents for out in reader(name, doc)]


def one_event(energy: np.ndarray[Any, Any]) -> list[Frame | SetAside]:
    data = {"energy": energy, "I0": np.ones(energy.size), "It": np.exp(-energy / 10000)}
    keys = dict.fromkeys(KEYS, array(energy.size))
    return feed(Frames(), start("r"), descriptor("r", keys), event("r", 1, data))


# ---------------------------------------------------------------- one document


def test_an_event_of_noise_gives_one_note_and_no_search_for_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    from xas_agent.agent.stream import sweeps

    borders = []
    find = sweeps._find_border
    monkeypatch.setattr(sweeps, "_find_border", lambda *args: borders.append(1) or find(*args))
    noise = 7800 + np.random.default_rng(0).normal(0, 100, 200_000)
    (note,) = one_event(noise)
    assert isinstance(note, SetAside)
    assert note.reason == Reason.ENERGY_NOT_MONOTONIC
    assert not borders


def test_an_event_of_many_sweeps_is_read_up_to_a_limit() -> None:
    sweep = np.linspace(7600, 8000, 12)
    period = np.concatenate([sweep, sweep[::-1]])
    assert len(one_event(np.tile(period, 500))) == 1000
    (note,) = one_event(np.tile(period, MAX_SWEEPS))
    assert isinstance(note, SetAside)
    assert note.reason == Reason.ENERGY_NOT_MONOTONIC
    parts = split_sweeps(np.tile(period, 3 * MAX_SWEEPS))  # beyond it the division is coarse, but nothing is missing
    assert sum(part.stop - part.start for part in parts) == 24 * 3 * MAX_SWEEPS


def test_bad_sweeps_of_one_event_give_one_note_with_their_number() -> None:
    long, short = np.linspace(7600, 8000, 40), np.linspace(7600, 8000, 5)[::-1]
    found = one_event(np.concatenate([np.r_[long, short]] * 6))
    notes = [out for out in found if isinstance(out, SetAside)]
    assert len(found) - len(notes) == 6
    assert [(note.reason, note.count) for note in notes] == [(Reason.TOO_FEW_POINTS, 6)]
    assert "and 5 more, the last is number 12" in notes[0].detail


def test_a_page_of_bad_events_gives_one_note() -> None:
    n = 5000
    page = {"descriptor": "r-d", "uid": [str(k) for k in range(n)], "time": [0.0] * n, "seq_num": ["x"] * n}
    page |= {"data": {"energy": [1.0] * n}, "timestamps": {"energy": [0.0] * n}}
    (note,) = feed(Frames(), start("r"), descriptor("r"), ("event_page", page))
    assert isinstance(note, SetAside)
    assert note.count == n


def test_an_event_of_too_many_points_is_not_sorted() -> None:
    (note,) = one_event(np.linspace(7600, 8000, MAX_SPECTRUM_POINTS + 1))
    assert isinstance(note, SetAside)
    assert note.reason == Reason.TOO_MANY_POINTS


@pytest.mark.parametrize(
    "document",
    [
        ("start", {"uid": "u" * (MAX_UID_LENGTH + 1), "time": 1.0}),
        ("start", {"uid": "r", "time": 1.0, "x": "x" * 50_000_000}),
        event("u" * 50_000_000, 1, {"energy": 1.0}),
        ("descriptor", {"uid": "d", "run_start": "r", "data_keys": {str(k): NUMBER for k in range(30_000)}}),
        ("stop", {"uid": "s", "run_start": "u" * 5000, "time": 1.0}),
    ],
    ids=["uid", "start", "descriptor of an event", "data keys", "run of a stop"],
)
def test_what_is_too_large_is_one_short_note(document: tuple[str, dict[str, Any]]) -> None:
    reader = Frames()
    found = feed(reader, document)
    assert [note.reason for note in found if isinstance(note, SetAside)] == [Reason.MALFORMED_DOCUMENT]
    assert isinstance(found[0], SetAside)
    assert len(found[0].detail) <= 300
    assert not reader.flush()


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "document",
    [
        ("start", {"uid": "r", "time": 1.0, "x": nested(5 * sys.getrecursionlimit())}),
        ("event", {"uid": "e", "descriptor": "unknown", "seq_num": 1, "data": nested(5 * sys.getrecursionlimit())}),
        ("event", {"uid": "e", "descriptor": "good-d", "seq_num": 10**5000, "time": 1.0, "data": {"energy": 1.0}}),
        ("stop", {"uid": "s", "run_start": "r", "time": 10**5000, "num_events": {"primary": 10**5000}}),
        ("stream_datum", {"uid": "x", "descriptor": "good-d", "seq_nums": {"start": 0, "stop": 10**5000}}),
    ],
    ids=["deep start", "deep event", "huge seq_num", "huge count", "huge rows"],
)
def test_deep_nesting_and_huge_numbers_cost_no_frame(document: tuple[str, dict[str, Any]]) -> None:
    reader = Frames()
    feed(reader, start("good"), descriptor("good"), *(point("good", seq) for seq in range(1, 21)), document)
    stop = {"uid": "s", "run_start": "good", "time": 9.0, "exit_status": "success", "num_events": {"primary": 40}}
    found = feed(reader, *(point("good", seq) for seq in range(21, 41)), ("stop", stop))
    assert [frame.energy.size for frame in [*found, *reader.flush()] if isinstance(frame, Frame)] == [40]


# ------------------------------------------------------------ sequence numbers


@pytest.mark.parametrize("step", [1, 3], ids=["descending", "descending with gaps"])
def test_descending_numbers_are_held_up_to_a_limit(step: int) -> None:
    order = SequenceNumbers()
    for seq in range(60_000, 0, -step):
        order.accept(seq)
        assert len(order._above) <= MAX_NUMBERS_AHEAD
    order.give_up()
    assert order.ready == 60_000


# -------------------------------------------------------------------- data keys


def test_a_stream_of_thousands_of_readings_is_read_with_some_of_them() -> None:
    keys = dict.fromkeys([*KEYS, *(f"motor{k}" for k in range(4000))], NUMBER)
    fields = resolve(FieldSettings(), descriptor("r", keys)[1], {})
    assert isinstance(fields, StreamFields)
    assert len(fields.readings) == MAX_READINGS


def test_the_energy_is_not_looked_for_among_thousands_of_keys() -> None:
    few = dict.fromkeys(["I0", "It", "position"], NUMBER)
    assert list(energy_candidates(FieldSettings(), descriptor("r", few)[1], {})) == ["position"]
    many = few | dict.fromkeys([f"motor{k}" for k in range(MAX_ENERGY_CANDIDATES)], NUMBER)
    assert energy_candidates(FieldSettings(), descriptor("r", many)[1], {}) == {}


# --------------------------------------------------------------- runs and memory


def test_stray_starts_do_not_end_a_run_that_measures() -> None:
    reader = Frames()
    found = feed(reader, start("good"), descriptor("good"))
    for seq in range(1, 101):
        found += feed(reader, point("good", seq), start(f"stray{seq}"))
        found += feed(reader, descriptor(f"stray{seq}"), point(f"stray{seq}", 1))
    stop = {"uid": "s", "run_start": "good", "time": 9.0, "exit_status": "success", "num_events": {"primary": 100}}
    found += feed(reader, ("stop", stop))
    assert [frame.energy.size for frame in found if isinstance(frame, Frame)] == [100]
    assert not [out for out in found if isinstance(out, SetAside) and out.run_uid == "good"]


def test_of_runs_that_measure_the_longest_idle_one_is_ended() -> None:
    reader = Frames()
    runs = [f"run{k}" for k in range(MAX_OPEN_RUNS)]
    for run in runs:
        feed(reader, start(run), descriptor(run), *(point(run, seq) for seq in range(1, 31)))
    feed(reader, point("run0", 31))  # the first one goes on
    (note,) = feed(reader, start("next"))
    assert isinstance(note, SetAside)
    assert (note.run_uid, note.reason) == ("run1", Reason.RUN_NEVER_STOPPED)


def test_runs_that_never_stop_do_not_end_one_that_begins() -> None:
    reader = Frames()
    for k in range(2 * MAX_OPEN_RUNS):
        feed(reader, start(f"r{k}"), descriptor(f"r{k}"), point(f"r{k}", 1), point(f"r{k}", 2))
    found = feed(reader, start("good"), descriptor("good"))
    for k in range(SHARES[0] - 1):
        found += feed(reader, start(f"other{k}"))
    for seq in range(1, 101):
        found += feed(reader, point("good", seq))
        found += feed(reader, start(f"s{seq}"), descriptor(f"s{seq}"), point(f"s{seq}", 1), point(f"s{seq}", 2))
    stop = {"uid": "s", "run_start": "good", "time": 9.0, "exit_status": "success", "num_events": {"primary": 100}}
    found += feed(reader, ("stop", stop))
    assert [frame.energy.size for frame in found if isinstance(frame, Frame)] == [100]


def record(uid: str, events: int, *arrivals: float, described: bool = True) -> RunRecord:
    run = RunRecord(uid, events=events)
    if described:
        run.streams["primary"] = StreamRecord(run, "primary", counted=True)
    for at in arrivals:
        run.touch(1, at)
    return run


@pytest.mark.parametrize(
    ("kept", "others"),
    [
        pytest.param(
            record("short", 3, 99.7, 99.8, 99.9),
            [record(f"{k}", 70, 35.0 + k / 4, 35.01 + k / 4) for k in range(256)],
            id="a short run among scans that never stop",
        ),
        pytest.param(
            record("scan", 70, 70.0, 70.1, 80.0),
            [record(f"{k}", 1, 99.7 + k / 1000) for k in range(256)],
            id="a scan that pauses during a burst of others",
        ),
        pytest.param(
            record("slow", 4, 10.0, 40.0, 70.0),
            [record(f"{k}", 4, 90.0 + k / 200, 90.01 + k / 200) for k in range(256)],
            id="a spectrum every 30 s among spectra that never stop",
        ),
        pytest.param(
            record("begun", 0, 95.0),
            [record(f"{k}", 0, 99.0 + k / 1000, described=False) for k in range(256)],
            id="a run that waits for its first Event, among stray starts",
        ),
        pytest.param(
            record("new", 0, 99.99, described=False),
            [record(f"{k}", 5 * k % 20, 35.0 + k / 4) for k in range(256)],
            id="a start among runs that never stop",
        ),
    ],
)
def test_a_run_that_measures_is_not_ended_for_others(kept: RunRecord, others: list[RunRecord]) -> None:
    assert least_needed([kept, *others], now=100.0) is not kept
    assert least_needed([*others, kept], now=100.0) is not kept


def test_large_starts_end_the_least_needed_runs() -> None:
    reader = Frames()
    for k in range(30):
        feed(reader, ("start", {**start(f"r{k}")[1], "table": np.zeros(10**6)}))
    runs = reader._reader._book._runs.open.values()  # type: ignore[attr-defined]
    assert 0 < sum(size_of(run.info.start) for run in runs if run.info) <= 64 * 2**20
    assert 0 < len(runs) < 30


def test_large_starts_end_no_small_run() -> None:
    reader = Frames()
    found = feed(reader, start("good"), descriptor("good"), point("good", 1), point("good", 2))
    for k in range(30):
        large = ("start", {**start(f"r{k}")[1], "table": np.zeros(10**6)})
        found += feed(reader, large, descriptor(f"r{k}"), *(point(f"r{k}", seq) for seq in range(1, 4)))
    assert [out.run_uid for out in found if isinstance(out, SetAside)][:1] == ["r0"]
    assert "good" not in {out.run_uid for out in found if isinstance(out, SetAside)}


def test_a_run_has_a_limited_number_of_descriptors() -> None:
    reader = Frames()
    feed(reader, start("r"))
    found = []
    for k in range(MAX_DESCRIPTORS + 5):
        found += feed(reader, ("descriptor", {**descriptor("r")[1], "uid": f"d{k}"}))
    assert [note.reason for note in found if isinstance(note, SetAside)] == [Reason.MALFORMED_DOCUMENT] * 5


def test_orphans_are_bounded_in_bytes() -> None:
    reader = Frames()
    tracemalloc.start()
    for k in range(100):
        reader("event", event(f"x{k}", 1, {"energy": np.zeros(250_000)})[1])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < MAX_HELD_BYTES + 2**20


@pytest.mark.parametrize("keys", [KEYS, ("I0", "It", "position")], ids=["known energy", "energy to be found"])
def test_the_points_of_a_run_that_never_stops_are_bounded_in_bytes(keys: tuple[str, ...]) -> None:
    reader = Frames()
    data = dict.fromkeys(keys, NUMBER) | {"image": {**array(100_000), "external": None}}
    feed(reader, start("r"), descriptor("r", data))
    tracemalloc.start()
    notes = []
    for seq in range(1, 201):  # what the descriptor calls numbers are arrays of 0.8 MB
        values = {key: np.full(100_000, 7600.0 + seq) for key in data}
        notes += reader("event", event("r", seq, values)[1])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < MAX_SWEEP_BYTES + 4 * 2**20
    assert notes


def test_a_step_scan_keeps_no_images() -> None:
    reader = Frames()
    feed(reader, start("r"), descriptor("r", dict.fromkeys(KEYS, NUMBER) | {"image": array(100_000)}))
    tracemalloc.start()
    for seq in range(1, 101):
        doc = point("r", seq)[1]
        reader("event", {**doc, "data": {**doc["data"], "image": np.zeros(100_000)}})
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2**20


def test_the_memory_of_a_run_of_whole_spectra_does_not_grow() -> None:
    reader = Frames()
    energy = np.linspace(7600, 8000, 20)
    data = {"energy": energy, "I0": np.ones(20), "It": np.exp(-energy / 10000)}
    feed(reader, start("r"), descriptor("r", dict.fromkeys(KEYS, array(20))))
    for seq in range(1, MAX_ANSWERED + 200):
        (frame,) = reader("event", event("r", seq, data)[1])
        assert isinstance(frame, Frame)
    (stream,) = reader._reader._assembler._runs["r"]._streams.values()  # type: ignore[attr-defined]
    assert len(stream.answered) == MAX_ANSWERED


def test_one_run_of_two_is_not_left_out_altogether() -> None:
    thinning = Thinning()
    for thinning.every in (2, 3, 4, 8):
        answered = [k % 2 for k in range(400) if not thinning.leaves_out()]
        assert abs(len(answered) - 400 / thinning.every) <= 2
        assert 0.3 < sum(answered) / len(answered) < 0.7


def test_repeated_points_count_with_the_size_of_their_values() -> None:
    points = PointBuffer(10)
    for k, values in enumerate((np.zeros(2), np.zeros(10**6))):
        points.add(1, ScanPoint(1.0, float(k), 0.0, {"It": values}))
    assert points._bytes > 8 * 10**6


def test_a_lossy_stream_of_spectra_gives_few_notes() -> None:
    made = Made()
    for _ in range(300):
        made.sweep(array=True)
    head, events = made.docs[:2], made.docs[2:]
    frames, asides = feed_made([*head, *events[::2], made.stop().docs[-1]])
    assert len(frames) == 150
    lost = [note for note in asides if note.reason is Reason.EVENTS_LOST]
    assert len(lost) <= 3
    assert sum(note.count for note in lost) == 150
