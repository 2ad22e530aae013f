"""The live table on a narrow terminal."""

import io
import math
from typing import Any

import pytest
from rich.console import Console, Group

from xas_agent.agent.decide import Rule
from xas_agent.app.output.live import Display, bars_of
from xas_agent.app.output.recorder import Recorder

NUMBERS = {"ood_score": 0.25, "OS_mean": 3.25, "OS_lo": 2.75, "OS_hi": 3.75, "CN_mean": 5.9, "latency_ms": 1234.5}


def row(number: int, **names: Any) -> dict[str, Any]:
    about = {"sample": "", "scan_id": 0, "file": "", "element": "Co"} | names
    return {"time": 1.7e9 + number, "run_uid": "r", "seq_num": number, "Ewe_V": 3.875, **NUMBERS, **about}


def printed(recorder: Recorder, *bars: str) -> str:
    text, display = io.StringIO(), Display(recorder, None, bars=bars)
    Console(width=80, file=text).print(Group(display._table(), *display._bars))
    return text.getvalue()


@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("decided", [False, True])
@pytest.mark.parametrize("differ", [False, True])
def test_frames_are_named_and_no_number_is_cut(differ: bool, decided: bool, anchored: bool):
    names = [{"sample": "Li[CoO2]" * k, "scan_id": 252000 + k} for k in (1, 1 + differ)]
    rows = [row(k, **name) for k, name in enumerate(names)]
    if anchored:  # from the second frame on
        rows[1]["OS_anchored_mean"] = 3.062
    decisions = [{"time": rows[0]["time"], "action": "stop", "status": "acknowledged"}] if decided else []
    recorder = Recorder()
    recorder.latest.extend(rows)
    recorder.latest_decisions.update(zip("1", decisions, strict=False))
    said = printed(recorder)
    title = said.splitlines()[0].strip()
    assert title == ("2 samples, scans 252001–252002, Co" if differ else "Li[CoO2], scan 252001, Co")
    assert ("measured" in said, "acknowledged" in said) == (differ, decided)
    assert ("anchored" in said, said.count("3.06")) == (anchored, anchored)
    for number in ("3.25", "0.25", "3.875 V"):
        assert said.count(number) == 2
    assert said.count("2.75…3.75") == (0 if anchored and differ and decided else 2)


def test_the_bars_of_rules_are_shown_in_a_line_each():
    trigger = {"kind": "threshold", "quantity": "OS_anchored", "above": 3.5}
    low = {"kind": "all", "of": [trigger, {"kind": "band", "quantity": "readings.V", "low": 3, "high": 4}]}
    plateau = {"kind": "plateau", "quantity": "OS", "tolerance": 0.1, "frames": 7}
    made = [("half", trigger, "stop"), ("both", low, "pause"), ("still", plateau, "stop")]
    rules = [Rule.model_validate({"name": n, "trigger": t, "action": a}) for n, t, a in made]
    bars = bars_of(rules, {"OS_anchored": "e"})
    assert printed(Recorder(), *bars).split("\n") == [
        *["", "stop (half): OS_anchored above 3.5 e"],
        *["pause (both): OS_anchored above 3.5 e, readings.V within 3…4", ""],
    ]
    many = printed(Recorder(), *(f"{n} " * 60 for n in range(6))).split("\n")
    assert [line[:1] for line in many if line] == ["0", "1", "2", "3", "a"]
    assert max(map(len, many)) == 80


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
