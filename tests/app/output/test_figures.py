"""The picture of a session: which frames a line joins."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from xas_agent.agent.decide import Rule
from xas_agent.app.output import figures
from xas_agent.app.output.drawing import DrawingFailed, picture
from xas_agent.app.output.figures import draw_operando
from xas_agent.app.output.live import levels_of
from xas_agent.app.output.recorder import Drawn, DrawnFrame, named


def row(time: float, run: str, sample: str = "", element: str = "Co", **more: Any) -> dict[str, Any]:
    about = {"sample": sample, "scan_id": 0, "file": "", "element": element}
    estimates = {f"{d}_{end}": 3.0 for d in ("OS", "CN") for end in ("mean", "lo", "hi")}
    frame = {"time": time, "run_uid": run, "seq_num": 1, "frame_uid": f"{run}/{time}", "ood_score": 0.1}
    return {**frame, **about, **estimates, **more}


def drawn(*rows: dict[str, Any]) -> Drawn:
    return Drawn([DrawnFrame(row, row["sample"] or row["run_uid"]) for row in rows], len(rows))


def test_rows_of_a_sample_are_one_series_over_its_runs_and_in_the_order_of_time():
    shown = drawn(
        row(4, "r3", "a"), row(1, "r1", "a"), row(2, "r2", "b"), row(3, "r4"), row(5, "r5"), row(6, "r1", "a", "Ni")
    )
    times = [[frame.row["time"] for frame in frames] for frames in shown.by_series()]
    assert times == [[1, 4], [2], [3], [5], [6]]


@pytest.mark.parametrize("samples", [[""], ["$\\frac"], ["_hidden", "$a", "b" * 200], [f"s{k}" for k in range(30)]])
def test_any_samples_are_drawn(samples: list[str], tmp_path: Path):
    rows = [row(float(k), f"r{k}", sample) for k, sample in enumerate(samples * 2)]
    draw_operando(tmp_path / "operando.png", drawn(*rows), None)
    assert (tmp_path / "operando.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("samples", [("a",), ("a", "b")])
def test_an_anchored_oxidation_state_is_drawn_from_its_first_frame_on(samples: tuple[str, ...]):
    late = {f"OS_anchored_{end}": 3.2 for end in ("mean", "lo", "hi", "sd_frame")}
    rows = [row(1, "r1", "a"), row(2, "r1", "a", **late), *(row(3, sample, sample) for sample in samples[1:])]
    series, _ = figures._series(drawn(*rows))
    axes = Figure().add_subplot()
    figures._oxidation_state(axes, series)
    shown = {str(line.get_label()).split(",")[0]: np.asarray(line.get_ydata()) for line in axes.lines}
    assert np.array_equal(shown["OS_anchored"], [np.nan, 3.2], equal_nan=True)
    assert len(axes.lines) == 1 + len(samples)  # the bare estimate of each


def test_a_process_draws_the_same_picture(tmp_path: Path):
    shown = drawn(row(1, "r1", "a"), row(2, "r2", "b"))
    draw_operando(tmp_path / "operando.png", shown, None)
    assert picture(shown, None) == (tmp_path / "operando.png").read_bytes()


def test_a_process_draws_more_than_a_pipe_holds():
    rows = [row(float(k), "r1", "a") for k in range(2000)]
    assert picture(drawn(*rows), None).startswith(b"\x89PNG")


def test_the_failure_of_a_picture_names_its_cause():
    with pytest.raises(DrawingFailed, match="exit code 1: KeyError: 'ood_score'"):
        picture(drawn({k: v for k, v in row(1, "r1").items() if k != "ood_score"}), None)


def test_a_hurried_session_does_not_wait_for_its_picture():
    asked = iter((False, False, True))
    with pytest.raises(DrawingFailed, match="given up"):
        picture(drawn(row(1, "r1")), None, lambda: next(asked))


def test_names_of_several_rows():
    rows = [
        row(1, "r", "NiO", "Ni", scan_id=7, file="a.dat"),
        row(2, "r", "NiO", "Ni", scan_id=9, file="b.dat"),
        row(3, "r", "CoO", "Co", scan_id=8),
    ]
    assert named(rows[0]) == "NiO, scan 7, a.dat, Ni"
    assert named(*rows[:2]) == "NiO, scans 7–9, 2 files, Ni"
    assert named(*rows) == "2 samples, scans 7–9, 2 files, Ni, Co"
    assert named() == ""


def test_decisions_at_one_frame_share_a_label_and_repeated_ones_are_counted():
    said = {"sample": "", "status": "acknowledged", "args": "{}"}
    at = {"stop": 1.0, "unload": 1.0, "repeat_frame": 2.0}
    decisions = [{**said, "rule": f"rule {action[0]}", "action": action, "time": time} for action, time in at.items()]
    decisions += [{**said, "rule": "rule r", "action": "repeat_frame", "time": 3.0}]
    args = '{"signal": "furnace", "value": 6}'
    decisions += [{**said, "action": "set", "time": 4.0, "args": args, "status": "rejected", "rule": "hot"}]
    shown = drawn(*(row(float(k), "r1") for k in range(1, 5)))
    shown.decisions.extend(decisions)
    series, _ = figures._series(shown)
    axes = Figure().add_subplot()
    figures._decisions(axes, series, shown)
    assert [text.get_text() for text in axes.texts] == [
        "rule s, rule u:\nstop, unload (acknowledged)",
        "rule r:\nrepeat_frame (acknowledged), 2 times",
        "hot:\nset furnace to 6 (rejected)",
    ]
    assert len(axes.lines) == 4


def test_the_label_of_a_decision_covers_no_point_where_there_is_room():
    shown = drawn(*(row(float(k), "r1", OS_mean=1.0 if k == 5 else 3.0) for k in range(10)))
    shown.decisions.append({"rule": "r", "action": "stop", "sample": "", "status": "sent", "args": "{}", "time": 5.0})
    series, _ = figures._series(shown)
    axes = Figure().add_subplot()
    figures._interval(axes, series, "OS")
    figures._decisions(axes, series, shown)
    [label] = axes.texts
    low = axes.transLimits.transform((0.0, 1.0))[1]
    assert low < label.xy[1] < 0.5


def test_the_levels_of_rules_are_drawn_on_the_panel_of_their_quantity():
    rules = [
        {"name": "a", "trigger": {"kind": "threshold", "quantity": "OS", "above": 3.5}},
        {"name": "b", "trigger": {"kind": "band", "quantity": "CN", "low": 4.5, "high": 5.5}},
    ]
    levels = levels_of([Rule.model_validate(rule) for rule in rules])
    shown = replace(drawn(row(1, "r1"), row(2, "r1")), levels=levels)
    drawn_levels = {}
    for quantity in ("OS", "CN", "ood_score"):
        axes = Figure().add_subplot()
        figures._levels(axes, shown, quantity)
        drawn_levels[quantity] = [text.get_text() for text in axes.texts]
        assert [float(np.asarray(line.get_ydata())[0]) for line in axes.lines] == [
            float(t) for t in drawn_levels[quantity]
        ]
    assert drawn_levels == {"OS": ["3.5"], "CN": ["4.5", "5.5"], "ood_score": []}


def test_frames_that_the_model_does_not_know_are_marks_without_line_and_interval():
    series, _ = figures._series(drawn(row(1, "r1"), row(2, "r1", ood_score=1.4, OS_mean=1.5), row(3, "r1")))
    axes = Figure().add_subplot()
    figures._interval(axes, series, "OS")
    marks, line = axes.lines
    assert (list(np.asarray(marks.get_ydata())), marks.get_label()) == ([1.5], "unlike the training spectra")
    assert np.array_equal(np.asarray(line.get_ydata()), [3.0, np.nan, 3.0], equal_nan=True)


def test_the_temperature_is_drawn_where_there_is_no_voltage():
    for readings, label in (
        ({"sample_temperature": 300.0}, "sample_temperature (dotted)"),
        ({"temperature": 300.0}, "temperature (degC, dotted)"),
        ({"temperature": 25.0, "voltage": 3.9}, "voltage (V, dotted)"),
    ):
        shown = replace(drawn(row(1, "r1", **readings), row(2, "r1", **readings)), units={"temperature": "degC"})
        series, _ = figures._series(shown)
        figure = Figure()
        figures._driving_reading(figure.add_subplot(), series, shown)
        assert figure.axes[1].get_ylabel() == label
