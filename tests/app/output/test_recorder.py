"""What a session remembers of the agent's documents, without end and within bounds."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from recorded_frames import frame, started

from xas_agent.agent.types.reasons import Flag, Reason
from xas_agent.app.output.recorder import (
    LATEST,
    LATEST_DECISIONS,
    MAX_DRAWN,
    MAX_SAMPLES,
    OTHERS,
    Recorder,
)
from xas_agent.app.output.truth import Truth, compare_with_truth

WAITS = "waits 600 s for approval"


def decision(recorder: Recorder, id: int, status: str, status_reason: str = "", **more: Any) -> None:
    data = {"id": str(id), "rule": "r", "action": "stop", "status": status, "status_reason": status_reason, **more}
    recorder("event", {"descriptor": "decisions/run", "time": 1.0, "data": data})


def test_flags_are_counted_even_one_with_a_comma():
    recorder = started(Recorder())
    both = ", ".join((Flag.NOT_FLUORESCENCE, Flag.GLITCHES_REPAIRED))
    for number, flags in enumerate((both, Flag.GLITCHES_REPAIRED.value, ""), 1):
        frame(recorder, number, flags=flags)
    assert recorder.flags == {Flag.NOT_FLUORESCENCE.value: 1, Flag.GLITCHES_REPAIRED.value: 2}


def test_losses_of_documents_are_gaps_and_other_reasons_are_set_aside():
    recorder = started(Recorder())
    notes = ((Reason.EVENTS_LOST, 0, 5), (Reason.NO_PRE_EDGE, 3, 1), (Reason.OVERLOAD, 4, 7))
    for reason, number, count in notes:
        data = {"reason": reason.value, "frame_seq_num": number, "count": count}
        recorder("event", {"descriptor": "quality/run", "data": data})
    assert recorder.gaps == Counter({"events lost": 5})
    assert recorder.set_aside == Counter({"no pre-edge": 1, "overload": 7})
    assert recorder.numbered == 8


def test_of_many_frames_a_sample_of_every_series_is_kept_with_its_spectra():
    rows: list[dict[str, Any]] = []
    recorder = started(started(Recorder(rows.append), "a"), "b")
    for number in range(1, MAX_DRAWN + 2001):
        frame(recorder, number, "ab"[number % 2])
    assert (recorder.frames, len(rows), len(recorder.latest)) == (MAX_DRAWN + 2000, MAX_DRAWN + 2000, LATEST)
    drawn = recorder.drawn()
    assert MAX_DRAWN <= len(drawn.frames) <= MAX_DRAWN + 1
    assert max(f.row["seq_num"] for f in drawn.frames) == MAX_DRAWN + 2000
    for frames in drawn.by_series():
        assert len(frames) > MAX_DRAWN / 3
        assert all(f.spectrum is not None and f.spectrum[0] == f.row["seq_num"] for f in frames)


def test_spectra_that_come_after_the_descriptors_of_many_frames_are_those_of_their_frames():
    held: list[tuple[str, dict[str, Any]]] = []
    for number in range(1, 6):
        frame(lambda *document: held.append(document), number)  # type: ignore[arg-type]
    recorder = started(Recorder())
    for document in sorted(held, key=lambda document: document[1]["descriptor"]):  # as pages have them
        recorder(*document)
    frames = recorder.drawn().frames
    assert [f.spectrum[0] for f in frames if f.spectrum is not None] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_descriptor_that_begins_late_has_columns_from_then_on():
    recorder = started(Recorder())
    before = recorder.columns()
    assert "OS_anchored_mean" not in before
    keys = {f"{name}_{end}": None for name in ("OS", "OS_anchored") for end in ("mean", "lo", "hi", "sd_frame")}
    hints = {"xas_agent": {"fields": ["OS_mean", "OS_anchored_mean"]}}
    later = {"uid": "later", "name": "descriptors", "run_start": "a/run", "hints": hints, "data_keys": keys}
    recorder("descriptor", later | {"object_keys": {"readings": []}})
    new = [column for column in recorder.columns() if column not in before]
    assert new == [f"OS_anchored_{end}" for end in ("mean", "lo", "hi", "sd_frame")]
    assert [column for column in recorder.columns() if column in before] == before


def test_a_few_frames_have_no_correlation_with_the_truth():
    def compared(frames: int) -> set[str]:
        recorder, numbers = started(Recorder()), range(1, frames + 1)
        for number in numbers:
            frame(recorder, number, OS_mean=3.0 + 0.05 * number)
        rows = [{"x": 1 - 0.05 * number, "frame": number, "run": "r"} for number in numbers]
        return {*(compare_with_truth(recorder, Truth(rows=rows)) or {})}

    errors = {"mae_e", "mae_two_point_e"}
    assert (compared(9), compared(10)) == (errors, errors | {"spearman", "pearson"})


def test_the_anchored_values_are_compared_with_the_truth_where_there_are_any():
    recorder = started(Recorder())
    truth = Truth(rows=[{"x": x, "frame": frame, "run": "r"} for frame, x in ((1, 1.0), (2, 0.8), (3, 0.6))])
    frame(recorder, 1, OS_mean=3.5)
    for number, os in ((2, 3.3), (3, 3.5)):
        frame(recorder, number, OS_mean=3.5 + os - 3, OS_anchored_mean=os)
    found = compare_with_truth(recorder, truth)
    assert found is not None
    assert found["mae_anchored_e"] == pytest.approx(0.1)
    bare = started(Recorder())
    for number in (1, 2, 3):
        frame(bare, number, OS_mean=3.0 + number)
    assert "mae_anchored_e" not in (compare_with_truth(bare, truth) or {})


def test_few_frames_are_all_drawn():
    recorder = started(Recorder())
    for number in range(1, 51):
        frame(recorder, number)
    assert [f.row["seq_num"] for f in recorder.drawn().frames] == list(range(1, 51))


def test_latencies_are_those_of_all_frames_to_a_hundredth():
    recorder, rng = started(Recorder()), np.random.default_rng(0)
    values = 10 ** rng.uniform(-1, 5, 5000)
    assert recorder.latency_ms() == {}
    for number, value in enumerate(values, 1):
        frame(recorder, number, latency_ms=float(value))
    p50, p99 = np.percentile(values, [50, 99])
    assert recorder.latency_ms() == pytest.approx({"p50": p50, "p99": p99}, rel=0.02)


def test_the_latency_of_what_waited_for_days_is_not_cut():
    recorder = started(Recorder())
    frame(recorder, 1, latency_ms=3 * 86400e3)
    assert recorder.latency_ms() == pytest.approx({"p50": 259.2e6, "p99": 259.2e6}, rel=0.02)


def test_samples_beyond_a_number_are_counted_together():
    recorder = started(Recorder())
    for number in range(1, MAX_SAMPLES + 11):
        frame(recorder, number, sample=f"s{number}")
    frame(recorder, 1, sample="s1")
    assert len(recorder.samples) == MAX_SAMPLES + 1
    assert (recorder.samples["s1"], recorder.samples[OTHERS]) == (2, 10)


def test_a_decision_is_a_row_once_with_its_last_status():
    rows: list[dict[str, Any]] = []
    recorder = started(Recorder(decision_row=rows.append))
    for status in ("proposed", "sent"):
        decision(recorder, 1, status)
    assert rows == []
    assert [row["id"] for row in recorder.unsettled()] == ["1"]
    decision(recorder, 2, "proposed", "controls are off: advice only")
    decision(recorder, 1, "acknowledged")
    assert [(row["id"], row["status"]) for row in rows] == [("2", "proposed"), ("1", "acknowledged")]
    assert (recorder.decisions, recorder.stopped_by, recorder.unsettled()) == (2, "r", [])


def test_all_that_stopped_runs_are_named_and_not_the_first_alone():
    recorder = Recorder()
    assert recorder.stopped_by is None
    recorder.stopped |= {"run 1": "half charged", "run 2": "half charged", "run 3": "operator"}
    assert recorder.stopped_by == "half charged, operator"


def test_a_confirmed_decision_is_one_row_that_says_when_and_by_whom():
    rows: list[dict[str, Any]] = []
    recorder = started(Recorder(decision_row=rows.append))
    steps = (("proposed", WAITS, ""), ("approved", "approved by ada", "ada"), ("sent", "", ""))
    for at, (status, reason, by) in enumerate(steps, 10):
        decision(recorder, 1, status, reason, status_time=float(at), by=by)
    assert rows == []
    assert recorder.unsettled()[0]["status"] == "sent"
    decision(recorder, 1, "sent", status_time=90.0, by="")  # again, after a restart
    decision(recorder, 1, "acknowledged", "stopped", status_time=91.0, by="")
    decision(recorder, 1, "expired", "too late", status_time=99.0, by="")
    [row] = rows
    assert (row["status"], row["status_reason"]) == ("acknowledged", "stopped")
    assert [row[f"{step}_at"] for step in ("proposed", "approved", "sent", "settled")] == [10.0, 11.0, 12.0, 91.0]
    assert (row["approved_by"], row["settled_by"]) == ("ada", "")
    assert recorder.statuses == {"proposed": 1, "approved": 1, "sent": 1, "acknowledged": 1}
    assert (recorder.decisions, [d["status"] for d in recorder.drawn().decisions]) == (1, ["acknowledged"])


def test_decisions_that_wait_are_not_forgotten_and_counted_again():
    recorder = started(Recorder())
    for id in range(LATEST_DECISIONS + 50):
        decision(recorder, id, "proposed", WAITS)
    for id in range(LATEST_DECISIONS + 50):
        decision(recorder, id, "rejected", "rejected by ada")
    assert recorder.decisions == LATEST_DECISIONS + 50


def test_settled_decisions_are_forgotten_and_open_ones_are_not():
    recorder = started(Recorder())
    decision(recorder, 0, "sent")
    for id in range(1, LATEST_DECISIONS + 50):
        decision(recorder, id, "rejected", "no")
    assert recorder.decisions == LATEST_DECISIONS + 50
    assert len(recorder.latest_decisions) == LATEST_DECISIONS
    assert [row["id"] for row in recorder.unsettled()] == ["0"]


def test_what_belongs_to_an_ended_or_unknown_run_is_let_go():
    recorder = started(Recorder())
    recorder("stop", {"run_start": "a/run"})
    frame(recorder, 1)
    recorder("descriptor", {"uid": "d", "name": "quality", "run_start": "elsewhere"})
    assert recorder.frames == 0
