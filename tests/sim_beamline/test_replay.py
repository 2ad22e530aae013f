import csv
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import event_model
import numpy as np
import pytest
from bluesky.run_engine import get_bluesky_event_loop
from hypothesis import given, settings
from hypothesis import strategies as st

from xas_agent.sim_beamline import recorded_documents
from xas_agent.sim_beamline.beamline import SimBeamline
from xas_agent.sim_beamline.replay import Replay, ReplayError
from xas_agent.sim_beamline.settings import BeamlineSettings

START = datetime(2022, 7, 27, 18, 45, 56).timestamp()


@pytest.fixture
def folder(tmp_path):
    """Five spectra ten seconds apart."""
    energy = np.linspace(8300, 8500, 101)
    norm = np.arange(5)[:, None] + np.linspace(0, 1, 101)
    np.savez(tmp_path / "spectra.npz", energy=energy, norm=norm.astype(np.float32), reference=norm)
    with (tmp_path / "series.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["scan", "start", "Ewe_V", "x_Li", "true_T"])
        for i in range(5):
            start = datetime.fromtimestamp(START + 10 * i).isoformat()
            table.writerow([f"scan_{i}", start, 3.6 + 0.01 * i, 0.7 - 0.02 * i, 300])
    return tmp_path


def replayed(source, speed=None, **kwargs):
    shown, truth = [], []
    replay = Replay(source, speed, [lambda *pair: shown.append(pair)], [lambda *pair: truth.append(pair)], **kwargs)
    replay.run()
    return replay, shown, truth


def only(name, documents):
    return [doc for n, doc in documents if n == name]


def test_a_folder_is_one_run_with_an_event_per_spectrum(folder):
    replay, shown, _ = replayed(folder, element="Ni", edge="K")
    (start,) = only("start", shown)
    assert (start["element"], start["edge"], start["frames_planned"]) == ("Ni", "K", 5)
    assert len(replay) == 5
    events = only("event", shown)
    assert [e["seq_num"] for e in events] == [1, 2, 3, 4, 5]
    for i, event in enumerate(events):
        assert set(event["data"]) == {"energy", "norm", "reference", "Ewe_V", "recorded_time"}
        np.testing.assert_array_equal(event["data"]["norm"], np.float32(i + np.linspace(0, 1, 101)))
        assert event["data"]["recorded_time"] == event["timestamps"]["norm"] == START + 10 * i
    assert only("stop", shown)[0]["exit_status"] == "success"


def test_a_sink_that_subscribes_gets_what_the_others_get(folder):
    shown, truth, late = [], [], []
    replay = Replay(folder, None, [lambda *pair: shown.append(pair)], [lambda *pair: truth.append(pair)])
    replay.subscribe(lambda *pair: late.append(pair))
    replay.run()
    assert only("event", truth)
    assert late == shown


def test_a_folder_without_a_reference_is_replayed_without(folder):
    with np.load(folder / "spectra.npz") as archive:
        energy, norm = archive["energy"], archive["norm"]
    replace_arrays(folder, energy=energy, norm=norm)
    _, shown, truth = replayed(folder)
    events = only("event", shown)
    assert len(events) == len(only("event", truth)) == 5
    assert {*events[0]["data"]} == {"energy", "norm", "Ewe_V", "recorded_time"}


@pytest.mark.parametrize("zone", ["+00:00", "Z", "+02:00", "-0700"])
def test_recorded_time_is_unix_seconds_whatever_the_zone(folder, zone):
    (folder / "series.csv").write_text("start\n" + f"2022-07-27T18:45:56.5{zone}\n" * 5)
    (first, *_) = only("event", replayed(folder)[1])
    utc = datetime(2022, 7, 27, 18, 45, 56, 500000, UTC).timestamp()
    hours = {"+00:00": 0, "Z": 0, "+02:00": 2, "-0700": -7}[zone]
    assert first["data"]["recorded_time"] == first["timestamps"]["norm"] == utc - 3600 * hours
    assert first["time"] == pytest.approx(time.time(), abs=60)


def test_without_element_none_is_claimed(folder):
    (start,) = only("start", replayed(folder)[1])
    assert "element" not in start
    assert "edge" not in start


def test_what_is_to_be_found_goes_to_the_truth_alone(folder):
    _, shown, truth = replayed(folder)
    assert "x_Li" not in repr(shown)
    assert "true_T" not in repr(shown)
    assert [e["data"]["x_Li"] for e in only("event", truth)] == pytest.approx([0.7, 0.68, 0.66, 0.64, 0.62])
    assert [e["data"]["frame"] for e in only("event", truth)] == [1, 2, 3, 4, 5]


def test_noise_only_when_asked(folder):
    noisy = only("event", replayed(folder, noise=0.1)[1])
    clean = only("event", replayed(folder)[1])
    residual = np.concatenate([a["data"]["norm"] - b["data"]["norm"] for a, b in zip(noisy, clean, strict=True)])
    assert residual.std() == pytest.approx(0.1, rel=0.2)


def test_speed_divides_the_recorded_intervals(folder):
    began = time.monotonic()
    _, shown, _ = replayed(folder, speed=100.0)
    assert time.monotonic() - began >= 0.4
    assert len(only("event", shown)) == 5


def test_stop_ends_a_slow_replay_at_once(folder):
    shown = []

    def sink(name, doc):
        shown.append((name, doc))
        if name == "event":
            threading.Timer(0.05, replay.obey, ("stop", {"reason": "enough"})).start()

    replay = Replay(folder, 1.0, [sink])
    replay.run()
    assert len(only("event", shown)) == 1
    assert only("stop", shown)[0]["reason"] == "enough"


def test_pause_and_resume_lose_no_frame(folder):
    shown = []

    def sink(name, doc):
        shown.append((name, doc))
        if name == "event" and doc["seq_num"] == 2:
            replay.obey("pause", {})
            threading.Timer(0.2, replay.obey, ("resume", {})).start()

    replay = Replay(folder, None, [sink])
    replay.run()
    times = [e["time"] for e in only("event", shown)]
    assert len(times) == 5
    assert times[2] - times[1] >= 0.2


def replace_arrays(folder, **arrays):
    np.savez(folder / "spectra.npz", **arrays)


E = np.linspace(0, 1, 10)
SPOIL = {
    "spectra": (lambda f: (f / "spectra.npz").unlink(), "spectra.npz: not found"),
    "series": (lambda f: (f / "series.csv").unlink(), "series.csv: not found"),
    "garbage": (lambda f: (f / "spectra.npz").write_bytes(b"PK\x03\x04 no"), "not a readable npz"),
    "no norm": (lambda f: replace_arrays(f, energy=E), "no array 'norm'"),
    "energy": (lambda f: replace_arrays(f, energy=np.ones((5, 10)), norm=E), r"energy has shape \(5, 10\)"),
    "points": (lambda f: replace_arrays(f, energy=E, norm=np.ones((5, 9))), r"norm has shape \(5, 9\)"),
    "reference": (
        lambda f: replace_arrays(f, energy=E, norm=np.ones((5, 10)), reference=np.ones((4, 10))),
        r"reference has shape \(4, 10\)",
    ),
    "rows": (lambda f: replace_arrays(f, energy=E, norm=np.ones((4, 10))), "5 rows, but spectra.npz has 4"),
    "no start": (
        lambda f: (f / "series.csv").write_text("scan,Ewe_V\n" + "a,3\n" * 5),
        "no column start; found scan, Ewe_V",
    ),
    "not a time": (lambda f: (f / "series.csv").write_text("start\n" + "noon\n" * 5), "not an ISO 8601 time"),
}  # fmt: skip


@pytest.mark.parametrize("fault", SPOIL)
def test_a_bad_folder_is_one_clear_message(folder, fault):
    spoil, message = SPOIL[fault]
    spoil(folder)
    with pytest.raises(ReplayError, match=message):
        Replay(folder, None, [])


def test_no_folder_and_no_speed():
    with pytest.raises(ReplayError, match="found no such file or folder"):
        Replay(Path("nowhere"), None, [])
    with pytest.raises(ReplayError, match="speed is 0"):
        Replay([], 0, [])


@pytest.fixture(scope="module")
def recording():
    documents: list = []
    SimBeamline(
        BeamlineSettings(frames=3, frame_period_s=0),
        [lambda *p: documents.append(p)],
        [lambda *p: documents.append(p)],
    ).run()
    return documents


def test_documents_are_measured_again_run_for_run(recording):
    replay, shown, truth = replayed(recording)
    again = shown + truth
    assert len(replay) == 3
    assert [n for n, _ in shown] == [
        "start", "descriptor", "event", "stop", "start", "descriptor", "event", "event", "event", "stop",
    ]  # fmt: skip
    for name in ("start", "event", "descriptor", "stop"):
        assert len(only(name, again)) == len(only(name, recording))
    new = {doc["uid"] for _, doc in again}
    assert not new & {doc["uid"] for _, doc in recording}
    old_start, start = only("start", recording)[1], only("start", shown)[1]
    assert {k: v for k, v in start.items() if k not in ("uid", "time")} == {
        k: v for k, v in old_start.items() if k not in ("uid", "time")
    }
    old = [e for e in only("event", recording) if "energy" in e["data"]]
    for before, after in zip(old, only("event", shown)[1:], strict=True):
        for field, value in before["data"].items():
            np.testing.assert_array_equal(value, after["data"][field])
        assert after["timestamps"] == before["timestamps"]
    keys = only("descriptor", recording)[1]["data_keys"]
    assert only("descriptor", shown)[1]["data_keys"] == keys


def test_an_agents_own_runs_are_left_out(recording):
    agent = [
        ("start", {"uid": "a", "time": 0.0, "xas_agent": True}),
        ("descriptor", {"uid": "d", "run_start": "a", "name": "descriptors", "data_keys": {}, "time": 0.0}),
        ("event", {"uid": "e", "descriptor": "d", "data": {}, "timestamps": {}, "seq_num": 1, "time": 0.0}),
        ("stop", {"uid": "s", "run_start": "a", "exit_status": "success", "time": 0.0}),
    ]
    shown = replayed([*agent, *recording])[1]
    assert [n for n, _ in shown] == [n for n, _ in replayed(recording)[1]]


def test_a_recording_without_its_end_is_closed_as_aborted(recording):
    cut = [pair for pair in recording if pair[0] != "stop"]
    assert {doc["exit_status"] for doc in only("stop", replayed(cut)[1])} == {"abort"}


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "no RunStart"),
        ([("start", {"uid": "a"}), ("resource", {"uid": "r"})], "external data"),
        ([("start", {"time": 0.0})], "document 1, start: not a Bluesky document"),
        ([("start", {"uid": ["a"]})], "uid: Input should be a valid string"),
        (
            [("descriptor", {"uid": "d", "run_start": "a"})],
            "document 1, descriptor: .*data_keys: Field required",
        ),
        (
            [("start", {"uid": "a"}), ("descriptor", {"uid": "d", "run_start": "a", "data_keys": {"I0": 1}})],
            r"data_keys\.I0: Input should be a valid dict",
        ),
        ([("start", {"uid": "a", "scan_id": "12"})], "start: not a Bluesky document .scan_id: '12' is not of type"),
        ([("event", {"descriptor": "d", "data": [1.0]})], "data: Input should be a valid dict"),
        ([("event_page", {"descriptor": "d"})], "document 1, event_page: .*uid: Field required"),
        ([("stop", {"uid": "s"})], "run_start: Field required"),
    ],
)
def test_bad_documents_are_one_clear_message(documents, message):
    with pytest.raises(ReplayError, match=message):
        Replay(documents, None, [])


def test_an_event_page_is_one_event_for_each_row(recording):
    page: dict = dict(event_model.pack_event_page(*[e for e in only("event", recording) if "energy" in e["data"]]))
    page["data"] = {name: np.asarray(column) for name, column in page["data"].items()}
    documents = []
    for name, doc in recording:
        if name != "event":
            documents.append((name, doc))
        if doc["uid"] == page["descriptor"]:
            documents.append(("event_page", page))
    assert len(only("event", replayed(documents)[1])) == 3


def test_a_programming_error_is_not_taken_for_a_bad_document(recording, monkeypatch):
    def broken(*_):
        raise AttributeError("a defect")

    monkeypatch.setattr(recorded_documents, "RecordedDevice", broken)
    with pytest.raises(AttributeError, match="a defect"):
        Replay(recording, None, [])


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_any_order_and_loss_of_documents_is_replayed_or_refused(recording, data):
    kept = data.draw(st.lists(st.sampled_from(range(len(recording))), max_size=2 * len(recording)))
    try:
        replay, shown, truth = replayed([recording[i] for i in kept])
    except ReplayError:
        return
    starts = {doc["uid"] for doc in only("start", shown + truth)}
    assert {doc["run_start"] for doc in only("stop", shown + truth)} == starts
    assert len(replay) >= 0


def test_the_event_loop_of_the_callers_own_run_engine_is_left_in_place(recording):
    loop = get_bluesky_event_loop()
    replayed(recording)
    assert get_bluesky_event_loop() is loop


def scan_with_losses(lost=(), *, bulk=False):
    run = event_model.compose_run(metadata={"plan_name": "scan"})
    keys = {"energy": {"dtype": "number", "shape": [], "source": "sim"}}
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    events = [stream.compose_event(data={"energy": float(n)}, timestamps={"energy": float(n)}) for n in range(12)]
    kept = [dict(event) for event in events if event["seq_num"] not in lost]
    middle = [("bulk_events", {stream.descriptor_doc["uid"]: kept})] if bulk else [("event", event) for event in kept]
    return [("start", run.start_doc), ("descriptor", stream.descriptor_doc), *middle, ("stop", run.compose_stop())]


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("lost", [(), (5, 6), (1,), (11, 12), tuple(range(1, 13))])
def test_losses_of_a_recording_remain(lost, bulk):
    documents = scan_with_losses(lost, bulk=bulk)
    shown = replayed(documents)[1]
    assert [doc["seq_num"] for doc in only("event", shown)] == [n for n in range(1, 13) if n not in lost]
    assert len(only("descriptor", shown)) == 1
    assert only("stop", shown)[0]["num_events"] == {"primary": 12}


def test_repeated_numbers_of_a_rewound_plan_remain():
    documents = scan_with_losses()
    documents[8:8] = [(name, {**doc, "uid": f"again {doc['seq_num']}"}) for name, doc in documents[6:8]]
    numbers = [doc["seq_num"] for doc in only("event", replayed(documents)[1])]
    assert numbers == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9, 10, 11, 12]
