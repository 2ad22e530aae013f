"""The live table on a narrow terminal."""

import io
import math
from typing import Any

import pytest
from rich.console import Console

from xas_agent.app.output.live import Display
from xas_agent.app.output.recorder import Recorder

NUMBERS = {"ood_score": 0.25, "OS_mean": 3.25, "OS_lo": 2.75, "OS_hi": 3.75, "CN_mean": 5.9, "latency_ms": 1234.5}


def row(number: int, **names: Any) -> dict[str, Any]:
    about = {"sample": "", "scan_id": 0, "file": "", "element": "Co"} | names
    return {"time": 1.7e9 + number, "run_uid": "r", "seq_num": number, "Ewe_V": 3.875, **NUMBERS, **about}


def printed(recorder: Recorder) -> str:
    text = io.StringIO()
    Console(width=80, file=text).print(Display(recorder, None)._table())
    return text.getvalue()


@pytest.mark.parametrize("decided", [False, True])
@pytest.mark.parametrize("differ", [False, True])
def test_frames_are_named_and_no_number_is_cut(differ: bool, decided: bool):
    names = [{"sample": "Li[CoO2]" * k, "scan_id": 252000 + k} for k in (1, 1 + differ)]
    rows = [row(k, **name) for k, name in enumerate(names)]
    decisions = [{"time": rows[0]["time"], "action": "stop", "status": "acknowledged"}] if decided else []
    recorder = Recorder()
    recorder.latest.extend(rows)
    recorder.latest_decisions.update(zip("1", decisions, strict=False))
    said = printed(recorder)
    title = said.splitlines()[0].strip()
    assert title == ("2 samples, scans 252001–252002, Co" if differ else "Li[CoO2], scan 252001, Co")
    assert ("measured" in said, "acknowledged" in said) == (differ, decided)
    for number in ("3.25", "2.75…3.75", "0.25", "3.875 V"):
        assert said.count(number) == 2


def test_before_the_first_frame():
    assert printed(Recorder()).strip() == ""


def test_a_step_scan_in_progress_is_shown(capsys):
    points = iter([None, (7, 253), (7, 253), (8, 0)])
    display = Display(Recorder(), None, lambda: next(points))
    display._shown_at = -math.inf
    for _ in range(4):
        display.refresh()
        display._shown_at = -math.inf  # as if the interval between two lines had passed
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["scan in progress: 7 of 253 points", "scan in progress: 8 of an unknown number of points"]
