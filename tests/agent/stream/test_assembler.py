"""Frames from streams of documents of every form, in any order."""

import contextlib
import random
import uuid
from collections.abc import Sequence
from typing import Any

import event_model
import numpy as np
import pytest
from bluesky import RunEngine, RunEngineInterrupted
from bluesky import plan_stubs as bps
from bluesky.plan_stubs import one_nd_step
from bluesky.plans import list_scan
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import capture_logs
from made_runs import AXIS, I0, Doc, Made, N, feed, pairs, reasons
from ophyd.sim import SynAxis, SynSignal
from streams import Frames

from xas_agent.agent.fields.settings import FieldSettings
from xas_agent.agent.stream.deadlines import PATIENCE_DOCUMENTS, PATIENCE_S
from xas_agent.agent.stream.held import MAX_HELD_DOCUMENTS
from xas_agent.agent.stream.reader import FrameReader
from xas_agent.agent.stream.runs import MAX_OPEN_RUNS
from xas_agent.agent.types.frame import Frame, Received


def check_true(frames: Sequence[Frame], runs: Sequence[Made]) -> None:
    """Check that every frame comes from one sweep of its run and that no sweep is answered twice."""
    answered = []
    for frame in frames:
        (run,) = [r for r in runs if r.uid == frame.run_uid]
        found = pairs(frame.energy, frame.mu)
        assert (np.diff(frame.energy) > 0).all()
        (sweep,) = [k for k, true in enumerate(run.truth()) if found <= true]
        assert N - frame.points_missing <= len(found) <= N
        answered.append((run.uid, sweep))
    assert len(set(answered)) == len(answered)
    assert len({f.uid for f in frames}) == len(frames)
    assert len({(f.run_uid, f.seq_num) for f in frames}) == len(frames)


# ------------------------------------------------------------------ in order


def test_step_scan_gives_one_frame() -> None:
    made = Made(sample_uid="s").sweep(voltage=3.9).stop()
    (frame,), asides = feed(made.docs, flush=False)
    assert not asides
    check_true([frame], [made])
    assert (frame.element, frame.edge, frame.seq_num, frame.direction) == ("Ni", "K", 1, "rising")
    assert (frame.stream, frame.series, frame.readings) == ("primary", "s", {"voltage": pytest.approx(3.9)})
    last = made.docs[-2][1]
    assert (frame.time, frame.received) == (last["time"], (len(made.docs) - 2) * 1e-6)
    assert frame.uid == feed(made.docs)[0][0].uid, "the same documents give the same uid"


def test_whole_spectrum_gives_a_frame_at_once() -> None:
    made = Made().sweep(array=True, rising=False, voltage=4.1)
    (frame,), asides = feed(made.docs, flush=False)
    assert not asides
    check_true([frame], [made])
    event = made.docs[-1][1]
    assert (frame.uid, frame.time, frame.direction) == (event["uid"], event["time"], "falling")
    assert frame.readings == {"voltage": 4.1}


def test_sweep_is_returned_when_the_energy_turns() -> None:
    made = Made().sweep().sweep(rising=False).sweep(rising=False)
    assembler = Frames()
    when = [k for k, (name, doc) in enumerate(made.docs) if any(assembler(name, doc))]
    assert when[0] - 2 in range(N, N + 3)
    assert when[1] - 2 in range(2 * N, 2 * N + 3)
    assert len(when) == 2


@settings(max_examples=60, deadline=None)
@given(
    rising=st.lists(st.booleans(), min_size=1, max_size=4),
    jitter=st.sampled_from([0.0, 0.1]),
    array=st.booleans(),
    page=st.sampled_from([None, 1, 7, 1000]),
    seed=st.integers(0, 1000),
)
def test_sweeps_are_returned_in_order(
    rising: list[bool], jitter: float, array: bool, page: int | None, seed: int
) -> None:
    made = Made()
    for up in rising:
        made.sweep(rising=up, jitter=jitter, array=array, seed=seed)
    made.stop()
    frames, asides = feed(made.paged(page) if page else made.docs, flush=False)
    assert not asides
    check_true(frames, [made])
    assert [f.seq_num for f in frames] == list(range(1, len(rising) + 1))
    assert [f.direction for f in frames] == ["rising" if up else "falling" for up in rising]
    assert [pairs(f.energy, f.mu) for f in frames] == made.truth()


def test_array_with_several_sweeps_is_split() -> None:
    made = Made()
    energy = np.concatenate([AXIS, AXIS[::-1], [0.0] * 5])
    it = np.concatenate([np.linspace(1, 2, N), np.linspace(3, 4, N), [0.0] * 5])
    keys: Any = {k: {"source": "", "dtype": "array", "shape": [None]} for k in ("energy", "I0", "It")}
    descriptor = made.run.compose_descriptor(name="fly", data_keys=keys)
    data = {"energy": energy, "I0": np.where(it > 0, 5.0, 0.0), "It": it}
    event: Any = descriptor.compose_event(data=data, timestamps=dict.fromkeys(data, 0.0))
    frames, asides = feed([*made.docs, ("descriptor", descriptor.descriptor_doc), ("event", event)])
    assert not asides
    assert [(f.direction, f.energy.size, f.stream) for f in frames] == [("rising", N, "fly"), ("falling", N, "fly")]
    np.testing.assert_allclose(frames[1].mu, np.log(5.0 / np.linspace(3, 4, N))[::-1])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_energies_from_another_stream(order: tuple[int, int]) -> None:
    made = Made()
    about = {"source": "", "dtype": "array", "shape": [N]}
    axis = made.run.compose_descriptor(name="axis", data_keys={"energy": about})
    fly = made.run.compose_descriptor(name="fly", data_keys={"mu": about})
    events = [
        axis.compose_event(data={"energy": AXIS}, timestamps={"energy": 0.0}),
        fly.compose_event(data={"mu": np.arange(N) + 1.0}, timestamps={"mu": 0.0}),
    ]
    docs: list[Any] = [*made.docs, ("descriptor", axis.descriptor_doc), ("descriptor", fly.descriptor_doc)]
    (frame,), asides = feed([*docs, *(("event", events[k]) for k in order)])
    assert not asides
    np.testing.assert_array_equal(frame.energy, AXIS)
    assert reasons(feed([*docs, ("event", events[1])])[1]) == {"no energy": 1}


def test_run_engine_steps_a_device() -> None:
    energy = SynAxis(name="mono_energy")
    devices = [
        SynSignal(name="I0", func=lambda: I0),
        SynSignal(name="It", func=lambda: I0 * np.exp(-energy.position / 1e4)),
    ]
    engine, found, assembler = RunEngine({"XDI": {"Element": {"symbol": "Ni", "edge": "K"}}}), [], Frames()
    engine.subscribe(lambda name, doc: found.extend(assembler(name, doc)))
    engine(list_scan(devices, energy, AXIS[::-1].tolist()))
    (frame,) = found
    assert (frame.element, frame.direction) == ("Ni", "falling")
    np.testing.assert_allclose(frame.energy, AXIS)
    np.testing.assert_allclose(frame.mu, AXIS / 1e4)


def test_point_repeated_after_a_pause_is_used_once() -> None:
    energy, beam = SynAxis(name="energy"), SynSignal(name="I0", func=lambda: I0)
    lost, paused = set(AXIS[[7, 20, N - 1]].tolist()), set(AXIS[[7, 20, N - 1]].tolist())

    def transmitted() -> float:
        if energy.position in lost:  # the beam is lost at the first measurement of this point
            lost.remove(energy.position)
            return 1.0
        return I0 * np.exp(-energy.position / 1e4)

    def per_step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        yield from one_nd_step(detectors, step, pos_cache)
        if step[energy] in paused:  # a pause before the next checkpoint repeats this point
            yield from bps.pause()

    engine, docs, found, assembler = RunEngine({}), [], [], Frames()
    engine.subscribe(lambda name, doc: docs.append((name, doc)))
    engine.subscribe(lambda name, doc: found.extend(assembler(name, doc)))
    plan = list_scan([beam, SynSignal(name="It", func=transmitted)], energy, AXIS.tolist(), per_step=per_step)
    with pytest.raises(RunEngineInterrupted):
        engine(plan)
    while engine.state == "paused":
        with contextlib.suppress(RunEngineInterrupted):
            engine.resume()
    events = [doc for name, doc in docs if name == "event"]
    assert (len(events), len({doc["seq_num"] for doc in events})) == (N + 3, N)
    (frame,) = found
    np.testing.assert_allclose(frame.energy, AXIS)
    np.testing.assert_allclose(frame.mu, AXIS / 1e4)
    assert frame.points_missing == 0


@settings(max_examples=60, deadline=None)
@given(
    bad=st.sets(st.integers(1, 2 * N), max_size=4),
    again=st.dictionaries(st.integers(1, 2 * N), st.integers(1, 2 * N), max_size=3),
    rising=st.tuples(st.booleans(), st.booleans()),
)
def test_later_measurement_of_one_number_is_used(
    bad: set[int], again: dict[int, int], rising: tuple[bool, bool]
) -> None:
    made, docs, events = Made().sweep(rising=rising[0]).sweep(rising=rising[1]).stop(), [], []
    for name, doc in made.docs:
        seq = doc["seq_num"] if name == "event" else 0
        if seq in bad:
            data = {**doc["data"], "It": 1.0}
            docs.append((name, {**doc, "uid": str(uuid.uuid4()), "time": doc["time"] - 0.5, "data": data}))
        docs.append((name, doc))
        events += [doc] if seq else []
        for old in events[-again[seq] :] if seq in again else []:
            docs.append(("event", {**old, "uid": str(uuid.uuid4()), "time": old["time"] + 0.5}))
    frames, asides = feed(docs)
    assert not asides
    assert [pairs(f.energy, f.mu) for f in frames] == made.truth()


def test_repeated_spectrum_with_another_uid_is_answered_once() -> None:
    made = Made().sweep(array=True).sweep(array=True).stop()
    made.docs.insert(3, ("event", {**made.docs[2][1], "uid": str(uuid.uuid4()), "time": 1e9}))
    frames, asides = feed(made.docs)
    assert not asides
    assert [pairs(f.energy, f.mu) for f in frames] == made.truth()


def test_several_streams_and_arrays_of_one_number() -> None:
    made = Made().sweep(array=True, stream="fly")
    made.sweep(stream="primary").stop()
    for name, doc in made.docs:
        if name == "event" and not isinstance(doc["data"]["I0"], np.ndarray):
            doc["data"] = {key: [value] for key, value in doc["data"].items()}
    frames, asides = feed(made.docs)
    assert not asides
    check_true(frames, [made])
    assert {f.stream for f in frames} == {"fly", "primary"}


def test_frame_carries_the_robot_parameters_of_its_sample() -> None:
    robot = Made(sample_uid="s", plan_name="load_cell", parameters={"ratio": 0.5, "name": "x"})
    keys: Any = {k: {"source": "", "dtype": "number", "shape": []} for k in ("volume_ml", "voltage")}
    descriptor = robot.run.compose_descriptor(name="primary", data_keys=keys)
    event: Any = descriptor.compose_event(
        data={"volume_ml": 0.1, "voltage": 0.0}, timestamps=dict.fromkeys(("volume_ml", "voltage"), 0.0)
    )
    docs = [*robot.docs, ("descriptor", descriptor.descriptor_doc), ("event", event)]
    mine = Made(sample_uid="s").sweep(voltage=3.9).stop()
    other = Made(sample_uid="other").sweep(voltage=3.8).stop()
    for end in ([], [("stop", dict(robot.run.compose_stop()))]):  # its stop may be lost
        frames, asides = feed([*docs, *end, *mine.docs, *other.docs])
        assert not asides
        assert frames[0].readings == {"ratio": 0.5, "volume_ml": 0.1, "voltage": pytest.approx(3.9)}
        assert frames[1].readings == {"voltage": pytest.approx(3.8)}


def test_parameters_of_a_skipped_robot_run_are_kept() -> None:
    robot = Made(sample_uid="s", plan_name="align_sample", parameters={"ratio": 0.5})
    keys: Any = {"volume_ml": {"source": "", "dtype": "number", "shape": []}}
    descriptor = robot.run.compose_descriptor(name="primary", data_keys=keys)
    event: Any = descriptor.compose_event(data={"volume_ml": 0.1}, timestamps={"volume_ml": 0.0})
    robot.docs += [("descriptor", descriptor.descriptor_doc), ("event", event)]
    scan = Made(sample_uid="s", plan_name="rocking_curve", parameters={"width": 3.0}).sweep().stop()
    mine = Made(sample_uid="s").sweep().stop()
    frames, asides = feed([*robot.stop().docs, *scan.docs, *mine.docs])
    assert not asides
    (frame,) = frames
    assert frame.readings == {"ratio": 0.5, "volume_ml": 0.1}, "and nothing of a measurement"


# ----------------------------------------------------------- unusable data


@pytest.mark.parametrize("array", [True, False])
@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("It", np.nan, "NaN in data"),
        ("energy", np.nan, "NaN in data"),
        ("I0", 0.0, "I0 not positive"),
        ("It", "open", "shape disagrees with descriptor"),
        ("It", [1.0, 2.0], "shape disagrees with descriptor"),
    ],
)
def test_bad_value_affects_only_its_frame(array: bool, field: str, value: Any, reason: str) -> None:
    made = Made().sweep(array=array).sweep(array=array).sweep(array=array).stop()
    events = [doc for name, doc in made.docs if name == "event"]
    bad = events[len(events) // 2]
    if array and isinstance(value, float):
        bad["data"][field] = bad["data"][field].copy()
        bad["data"][field][5] = value
    else:
        bad["data"][field] = value
    frames, asides = feed(made.docs)
    if array and isinstance(value, list):  # a row of numbers, of another length than the energies
        reason = "lengths differ"
    assert reasons(asides) == {reason: 1}
    assert asides[0].seq_num == 2
    assert [f.seq_num for f in frames] == [1, 3]
    check_true(frames, [made])


ABSURD = st.sampled_from([1e300, -1e300, 1.7e308, 5e-324, 1e-310, np.inf, np.nan, 10**400, -(10**400)])


@settings(max_examples=100, deadline=None)
@given(
    array=st.booleans(),
    where=st.lists(
        st.tuples(st.integers(0, 2 * N), st.sampled_from(["energy", "I0", "It", "voltage", "time"]), ABSURD)
    ),
    kev=st.booleans(),
)
def test_extreme_numbers_give_finite_frames_only(array: bool, where: list[tuple[int, str, Any]], kev: bool) -> None:
    made = Made().sweep(array=array, voltage=1.0).sweep(array=array, voltage=1.0).stop()
    events = [doc for name, doc in made.docs if name == "event"]
    if kev:
        made.docs[1][1]["data_keys"]["energy"] = {**made.docs[1][1]["data_keys"]["energy"], "units": "keV"}
    for k, key, value in where:
        doc = events[k % len(events)]
        if key == "time":
            doc["time"] = value
        elif array and key != "voltage":
            doc["data"][key] = doc["data"][key].astype(object)
            doc["data"][key][k % N] = value
        else:
            doc["data"][key] = value
    frames, _ = feed(made.docs)
    for frame in frames:
        assert np.isfinite(frame.energy).all()
        assert np.isfinite(frame.mu).all()
        assert np.isfinite([frame.time, *frame.readings.values()]).all()


def test_array_with_an_unannounced_length() -> None:
    made = Made().sweep(array=True, axis=AXIS)
    data = made.docs[-1][1]["data"]
    data["energy"] = AXIS[:-1]
    assert reasons(feed(made.docs)[1]) == {"lengths differ": 1}
    data |= {name: data[name][:-1] for name in ("I0", "It")}
    frames, asides = feed(made.docs)
    assert not asides, "the descriptor's shape is that of the first reading"
    np.testing.assert_array_equal(frames[0].energy, AXIS[:-1])
    made.docs[-1][1]["data"].pop("energy")
    assert reasons(feed(made.docs)[1]) == {"field missing": 1}


def test_too_few_points_and_unordered_energies() -> None:
    assert reasons(feed(Made().sweep(axis=AXIS[:5]).stop().docs)[1]) == {"too few points": 1}
    assert reasons(feed(Made().sweep(axis=np.full(40, 8333.0)).stop().docs)[1]) == {"too few points": 1}
    mixed = np.random.default_rng(3).permutation(AXIS)
    assert reasons(feed(Made().sweep(axis=mixed, array=True).stop().docs)[1]) == {"energy not monotonic": 1}
    frames, asides = feed(Made().sweep(axis=mixed).stop().docs)
    assert not frames
    assert set(reasons(asides)) <= {"energy not monotonic", "too few points"}


def test_incomplete_sweep_is_set_aside() -> None:
    assert reasons(feed(Made().sweep().docs)[1]) == {"run never stopped": 1}
    assert reasons(feed(Made().sweep().stop("abort").docs)[1]) == {"sweep cut short": 1}
    assert reasons(feed(Made(num_points=N + 1).sweep().stop().docs)[1]) == {"sweep cut short": 1}
    (note,) = feed(Made(num_points=N + 1).sweep().stop().docs)[1]
    assert note.detail == f"after {N} points, {N + 1} planned; exit status success"
    assert len(feed(Made(num_points=N).sweep().docs)[0]) == 1
    assert len(feed(Made(num_points=N).sweep().stop("abort").docs)[0]) == 1


def test_agent_runs_and_other_kinds_of_runs_are_skipped() -> None:
    for metadata in ({"xas_agent": True}, {"plan_name": "align_mirror"}):
        for array in (True, False):
            made = Made(**metadata).sweep(array=array).stop()
            for docs in (made.docs, made.docs[::-1]):
                assert feed(docs) == ([], [])
    own = Made(xas_agent=True).sweep(array=True, stream="spectra").stop()
    assert feed(own.docs[1:]) == ([], []), "without its start it is known by its stream's name"


def test_a_baseline_alone_is_reported_where_the_run_names_its_element() -> None:
    made = Made().sweep(stream="baseline", axis=AXIS[:2]).stop()
    frames, (aside,) = feed(made.docs)
    assert not frames
    assert aside.detail.endswith("without a stream of spectra; found baseline")
    unnamed = [(name, {**doc, "element": None} if name == "start" else doc) for name, doc in made.docs]
    assert feed(unnamed) == ([], [])


def test_external_data_are_reported_once() -> None:
    made = Made().sweep(array=True).sweep(array=True).stop()
    made.docs[1] = ("descriptor", {**made.docs[1][1]})
    keys = made.docs[1][1]["data_keys"]
    made.docs[1][1]["data_keys"] = {key: {**about, "external": "STREAM:"} for key, about in keys.items()}
    extra: list[Doc] = [("stream_resource", {"uid": "x"}), ("stream_datum", {}), ("resource", {}), ("datum", {})]
    frames, asides = feed([*made.docs[:2], *extra, *made.docs[2:]])
    assert not frames
    assert reasons(asides) == {"external data not read": 1}


# ------------------------------------------------------------------ disorder


def losing(made: Made, *lost: int) -> list[Doc]:
    """Return the documents without the Events of these numbers."""
    return [d for d in made.docs if d[0] != "event" or d[1]["seq_num"] not in lost]


def test_lost_points() -> None:
    made = Made().sweep(axis=np.linspace(8300, 8400, 200)).sweep(axis=np.linspace(8300, 8400, 200)).stop()
    frames, asides = feed(losing(made, 50))
    assert not asides
    assert [f.points_missing for f in frames] == [1, 0]
    assert reasons(feed(losing(made, 199))[1]) == {"points lost": 2}, (
        "where it turns a point may be put to either side"
    )
    for lost in ((50, 51, 52), (10, 60, 70, 90, 110, 150)):
        frames, asides = feed(losing(made, *lost))
        assert reasons(asides) == {"points lost": 1}
        assert [f.seq_num for f in frames] == [2]
    frames, asides = feed(losing(made, *range(198, 204)))
    assert reasons(asides) == {"points lost": 2}, "what is lost at the turn may be of either sweep"
    frames, asides = feed(losing(made, *range(396, 401)))
    assert [f.seq_num for f in frames] == [1]
    assert reasons(asides) == {"points lost": 1}, "the stop says how many there were"


def test_lost_point_does_not_delay_later_sweeps() -> None:
    made = Made()
    for _ in range(6):
        made.sweep()
    frames, asides = feed(losing(made, 20), flush=False)
    assert [f.seq_num for f in frames] == [2, 3, 4, 5]
    assert reasons(asides) == {"points lost": 1}


def test_lost_spectrum_is_reported_at_the_end() -> None:
    made = Made().sweep(array=True).sweep(array=True).sweep(array=True).stop()
    frames, asides = feed(losing(made, 2))
    assert len(frames) == 2
    assert reasons(asides) == {"events lost": 1}


def test_joined_late() -> None:
    made = Made().sweep().sweep().stop()
    frames, asides = feed(made.docs[1:])
    assert len(frames) == 2
    assert reasons(asides) == {"joined late": 1}
    frames, asides = feed([made.docs[1], *made.docs[12:]])
    assert reasons(asides) == {"joined late": 1, "truncated": 1}
    assert [f.seq_num for f in frames] == [2]
    whole = Made().sweep(array=True).sweep(array=True)
    frames, asides = feed([*whole.docs[1:2], *whole.docs[3:]])
    check_true(frames, [whole])
    assert reasons(asides) == {"joined late": 1, "events lost": 1}


def test_missing_descriptor() -> None:
    made = Made().sweep().stop()
    frames, asides = feed([made.docs[0], *made.docs[2:]])
    assert not frames
    assert reasons(asides) == {"descriptor never came": 1}
    assert str(N) in asides[0].detail


@pytest.mark.parametrize("array", [True, False])
def test_joined_late_without_start_and_descriptor(array: bool) -> None:
    for spectra in (
        2,
        2 * PATIENCE_DOCUMENTS // (1 if array else N),
    ):  # the stop arrives before or after the Events are given up
        made = Made()
        for _ in range(spectra):
            made.sweep(array=array)
        made.stop()
        missed = [doc for doc in made.docs if doc[0] not in ("start", "descriptor")]
        *before, last = feed(missed)[1]
        assert reasons(before) == ({} if spectra == 2 else {"descriptor never came": 1})
        assert (last.reason, last.run_uid, last.seq_num) == ("joined late", made.uid, None)
        assert last.detail.startswith(f"{len(missed) - 1} events could not be read")
        other = Made().sweep(array=array).stop()
        frames, asides = feed([*missed, *other.docs, *other.docs[:1] * PATIENCE_DOCUMENTS], flush=False)
        check_true(frames, [other])
        assert asides[-1] == last


def test_missing_descriptor_is_reported_once() -> None:
    made = Made()
    for _ in range(2 * PATIENCE_DOCUMENTS):
        made.sweep(array=True)
    events = [doc for doc in made.docs if doc[0] == "event"]
    assert reasons(feed(events)[1]) == {"descriptor never came": 1}
    many = [("event", {**events[0][1], "uid": str(k)}) for k in range(MAX_HELD_DOCUMENTS + 100)]
    page = ("event_page", dict(event_model.pack_event_page(*(doc for _, doc in many))))
    assert reasons(feed([page])[1]) == {"descriptor never came": 1, "too many held back": 1}


def test_agent_run_joined_late_is_not_reported() -> None:
    own = Made(xas_agent=True).sweep(array=True, stream="spectra").stop()
    assert "joined late" not in reasons(feed(own.docs[2:])[1])


def test_missing_configured_field_is_reported_once_per_run() -> None:
    scan, robot = Made().sweep().sweep().stop(), Made(sample_uid="s", plan_name="load_cell")
    frames, (aside,) = feed(scan.docs, FieldSettings(energy="enrgy"))
    assert not frames
    assert (aside.reason, aside.uid, aside.seq_num) == ("field missing", scan.docs[1][1]["uid"], None)
    assert aside.detail == "no key 'enrgy' in stream primary; found energy, I0, It"
    for run, told in ((robot, 0), (Made(), 1)):
        keys: Any = {k: {"source": "", "dtype": "number", "shape": []} for k in ("mono", "upstream", "downstream")}
        for name in ("baseline", "primary"):
            made = run.run.compose_descriptor(name=name, data_keys=keys)
            event: Any = made.compose_event(data=dict.fromkeys(keys, 1.0), timestamps=dict.fromkeys(keys, 0.0))
            run.docs += [("descriptor", made.descriptor_doc), ("event", event)]
        asides = feed(run.stop().docs, FieldSettings(energy="mon", i0="up"))[1]
        assert len(asides) == told
        asides = feed(run.docs, FieldSettings(energy="mon", i0="upstream"))[1]
        assert [a.detail for a in asides] == ["no key 'mon' in stream primary; found mono, upstream, downstream"]
        assert (asides[0].run_uid, asides[0].seq_num) == (run.uid, None)


def test_waiting_ends_by_time() -> None:
    made, other = Made().sweep(axis=np.linspace(8300, 8400, 200)).stop(), Made().sweep()
    assembler = Frames()
    for name, doc in losing(made, 20):
        assert not assembler(name, doc, received=50.0)
    assert not assembler(*other.docs[0], received=50.0 + 0.9 * PATIENCE_S)
    (frame,) = assembler(*other.docs[1], received=50.0 + PATIENCE_S)
    assert isinstance(frame, Frame)
    assert frame.received == 50.0
    assert not assembler.waiting


def test_waiting_is_limited_and_ends_with_settle() -> None:
    made = Made().sweep(axis=np.linspace(8300, 8400, 200)).stop()
    assembler = Frames()
    for name, doc in losing(made, 20):
        assert not assembler(name, doc)
    assert assembler.waiting
    (frame,) = assembler.settle()
    assert isinstance(frame, Frame)
    assert not assembler.settle()
    other = Made().sweep(axis=np.linspace(8300, 8400, 2 * PATIENCE_DOCUMENTS))
    frames, _ = feed([*losing(made, 20), *other.docs], flush=False)
    assert len(frames) == 1


def test_repeated_run_is_answered_once() -> None:
    for array in (True, False):
        made = Made().sweep(array=array).sweep(array=array).stop()
        frames, asides = feed([*made.docs, *made.docs, *made.docs[::-1]])
        assert len(frames) == 2
        assert not asides


def test_number_of_open_runs_is_limited() -> None:
    runs = [Made(num_points=N).sweep() for _ in range(MAX_OPEN_RUNS + 3)]
    frames, asides = feed([d for r in runs for d in r.docs], flush=False)
    check_true(frames, runs)
    assert len(frames) == 3
    assert not asides


HARMS = ("shuffle", "jostle", "repeat", "lose 1 %", "lose 10 %", "lose 30 %")


def disorder(docs: list[Doc], harms: set[str], rng: random.Random) -> list[Doc]:
    if "repeat" in harms:
        docs = [d for d in docs for _ in range(1 + (rng.random() < 0.2))]
    for harm in harms:
        if harm.startswith("lose"):
            docs = [d for d in docs if rng.random() > float(harm.split()[1]) / 100]
    if "jostle" in harms:  # by fewer Events than the reorder window
        most = 20 / max((len(doc["uid"]) for name, doc in docs if name == "event_page"), default=1)
        docs = [d for _, d in sorted(enumerate(docs), key=lambda kd: kd[0] + rng.uniform(0, most))]
    if "shuffle" in harms:
        rng.shuffle(docs)
    return docs


def interleaved(queues: list[list[Doc]], rng: random.Random) -> list[Doc]:
    docs: list[Doc] = []
    while left := [q for q in queues if q]:
        docs.append(rng.choice(left).pop(0))
    return docs


@settings(max_examples=200, deadline=None)
@given(
    kinds=st.lists(
        st.tuples(st.booleans(), st.lists(st.booleans(), min_size=1, max_size=3), st.sampled_from([0, 3, 20])),
        min_size=1,
        max_size=3,
    ),
    harms=st.sets(st.sampled_from(HARMS)),
    aborted=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_disorder_never_gives_a_wrong_frame(
    kinds: list[tuple[bool, list[bool], int]], harms: set[str], aborted: bool, seed: int
) -> None:
    rng = random.Random(seed)
    runs, queues = [], []
    for array, rising, page in kinds:
        made = Made()
        for up in rising:
            made.sweep(rising=up, array=array, seed=seed % 1000)
        runs.append(made.stop("abort" if aborted else "success"))
        queues.append(made.paged(page) if page else list(made.docs))
    frames, _ = feed(disorder(interleaved(queues, rng), harms, rng))
    check_true(frames, runs)
    if not aborted and harms <= {"repeat", "jostle"}:
        assert len(frames) == sum(len(r.spectra) for r in runs)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    junk=st.lists(st.tuples(st.sampled_from(["start", "descriptor", "event", "event_page", "stop", "?"]), JUNK)),
    broken=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), JUNK), max_size=5),
    seed=st.integers(0, 99),
)
def test_malformed_documents_never_raise_nor_affect_other_runs(
    junk: list[tuple[str, Any]], broken: list[tuple[int, int, Any]], seed: int
) -> None:
    made, rng = Made().sweep(array=True).sweep(array=True).stop(), random.Random(seed)
    docs: list[Any] = list(made.docs)
    sound = [*made.docs[:3], made.paged(1)[2], made.docs[-1]]
    for which, key, value in broken:  # one part of a valid document
        name, doc = sound[which % len(sound)]
        new = {"run_start": str(uuid.uuid4())} if name in ("descriptor", "stop") else {"seq_num": 5}
        bad = {**doc, **new, "uid": str(uuid.uuid4()), sorted(doc)[key % len(doc)]: value}
        docs.insert(rng.randrange(len(made.docs)), (name, bad))
    for bad in junk:
        docs.insert(rng.randrange(len(docs)), bad)
    frames, _ = feed(docs)
    assert set(made.truth()) <= {pairs(f.energy, f.mu) for f in frames}


def test_regions_that_overlap_are_one_spectrum():
    axis = np.concatenate([np.arange(8300.0, 8332.0, 2.0), np.arange(8328.0, 8365.0, 0.5), np.arange(8362.0, 8400.0)])
    for order in (1, -1):
        frames, asides = feed(Made().sweep(axis=axis[::order]).stop().docs)
        assert not reasons(asides)
        (frame,) = frames
        np.testing.assert_array_equal(frame.energy, np.unique(axis))


@pytest.mark.parametrize("back", [10.0, 25.0, 45.0, 60.0, 200.0])
@pytest.mark.parametrize("order", [1, -1])
def test_a_step_back_is_judged_alike_in_points_and_arrays(back: float, order: int):
    """What is one scan with regions that overlap does not depend on the form of the documents."""
    axis = np.concatenate([np.arange(8200.0, 8420.0, 2.0), np.arange(8420.0 - back, 8700.0, 3.0)])[::order]
    points, arrays = (feed(Made().sweep(axis=axis, array=array).stop().docs) for array in (False, True))
    assert [f.energy.tolist() for f in points[0]] == [f.energy.tolist() for f in arrays[0]]
    assert len(points[0]) == (1 if back <= 50 else 2)
    assert reasons(points[1]) == reasons(arrays[1]) == {}


@pytest.mark.parametrize("number", [True, "two", N + 0.4])
def test_an_unreadable_number_of_points_is_logged(number: Any):
    with capture_logs() as lines:
        feed(Made(num_points=number).sweep().stop().docs)
    (line,) = [line for line in lines if "num_points is no whole number" in line["event"]]
    assert (line["log_level"], line["num_points"]) == ("warning", str(number))


def test_the_points_of_a_scan_in_progress_are_counted():
    reader = FrameReader()
    counts = []
    for name, doc in Made(num_points=N).sweep().stop().docs:
        reader(Received(name, doc, 0.0))
        counts.append(reader.points)
    assert counts == [None, None, *((k, N) for k in range(1, N + 1)), None]


def test_a_repetition_under_a_clock_that_stepped_back_is_logged():
    made = Made(num_points=N).sweep()
    events = [doc for name, doc in made.docs if name == "event"]
    again = [{**doc, "uid": str(uuid.uuid4()), "time": doc["time"] - 3600.0} for doc in events[10:20]]
    docs = [*made.docs[: 2 + 20], *(("event", doc) for doc in again), *made.docs[2 + 20 :]]
    with capture_logs() as lines:
        assert len(feed([*docs, made.stop().docs[-1]])[0]) == 1
    (line,) = [line for line in lines if "did a clock step back" in line["event"]]
    assert line["points"] == 10


@pytest.mark.parametrize("measured_again", [True, False])
def test_spectra_that_are_measured_again_are_logged_and_those_that_come_twice_are_not(measured_again: bool):
    made = Made()
    for _ in range(4):
        made.sweep(array=True)
    events = [doc for name, doc in made.docs if name == "event"]
    again = [{**doc, "uid": str(uuid.uuid4())} if measured_again else doc for doc in events]
    docs = [*made.docs, *(("event", doc) for doc in again)]
    with capture_logs() as lines:
        frames, asides = feed([*docs, made.stop().docs[-1]])
    assert ([frame.uid for frame in frames], asides) == ([doc["uid"] for doc in events], [])
    logged = [line for line in lines if "measured again" in line["event"]]
    assert [line["log_level"] for line in logged] == (["warning", "info"] if measured_again else [])
    if measured_again:
        assert (logged[0]["seq_num"], logged[1]["number"]) == (1, 4)


def test_a_gap_is_reported_with_its_numbers() -> None:
    made = Made()
    for _ in range(80):  # a gap is given up after 64 Events beyond it
        made.sweep(array=True)
    _, asides = feed(losing(made.stop(), 3, 4, 9))
    details = [aside.detail.rpartition(" ")[2] for aside in asides if aside.reason == "events lost"]
    assert details == ["3–4", "9"]
