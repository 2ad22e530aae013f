"""The picture of a session: what it shows, and that it is drawn whatever the session was."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xas_agent.agent.decide import Rule
from xas_agent.agent.types import Reason
from xas_agent.app.output.drawing import DrawingFailed, picture
from xas_agent.app.output.figures import draw_operando, operando_figure, part_of_series, quality_figure, save_svg
from xas_agent.app.output.figures.columns import columns_of
from xas_agent.app.output.figures.header import lines_of
from xas_agent.app.output.figures.panels import chosen, draw_driver, draw_score, driver_of
from xas_agent.app.output.figures.style import any_letters, listed
from xas_agent.app.output.figures.trend import bars_of, draw_trend, view_of
from xas_agent.app.output.recorder import OOD_LIMIT, Drawn, DrawnFrame, DrawnNote, named

HOSTILE = "\u202e$\\frac{<script>alert(1)</script>\n\t\x00 " + "very long " * 30


def row(time: float, run: str, sample: str = "", element: str = "Co", **more: Any) -> dict[str, Any]:
    about = {"sample": sample, "scan_id": 0, "file": "", "element": element}
    parts = {"mean": 3.0, "lo": 2.5, "hi": 3.5, "sd_frame": 0.01}
    estimates = {f"{d}_{part}": value for d in ("OS", "CN") for part, value in parts.items()}
    frame = {"time": time, "run_uid": run, "seq_num": 1, "frame_uid": f"{run}/{time}", "ood_score": 0.1}
    return {**frame, **about, **estimates, **more}


def drawn(*rows: dict[str, Any], **more: Any) -> Drawn:
    frames = [DrawnFrame(row, row["sample"] or row["run_uid"], "K") for row in rows]
    return Drawn(frames, len(rows), descriptors={"OS": "e", "CN": ""}, **more)


def decision(number: int, time: float, **more: Any) -> dict[str, Any]:
    made = {"id": str(number), "rule": "r", "action": "stop", "sample": "", "status": "sent", "args": "{}"}
    return {**made, "time": time, "run_uid": "r1", "element": "", **more}


def rule(**trigger: Any) -> Rule:
    return Rule.model_validate({"name": "r", "trigger": {"kind": "threshold", "quantity": "OS"} | trigger})


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for part in (figure, *figure.subfigs) for text in part.texts]


def trend_of(shown: Drawn) -> Axes:
    axes = Figure().add_subplot()
    [column] = columns_of(shown)
    draw_trend(axes, None, column, column.first, "e", shown.rules)
    return axes


def line(axes: Axes, label: str) -> np.ndarray:
    return np.asarray(next(one for one in axes.lines if str(one.get_label()).startswith(label)).get_ydata())


def test_rows_of_a_sample_are_one_series_over_its_runs_and_in_the_order_of_time():
    shown = drawn(
        row(4, "r3", "a"), row(1, "r1", "a"), row(2, "r2", "b"), row(3, "r4"), row(5, "r5"), row(6, "r1", "a", "Ni")
    )
    times = [[frame.row["time"] for frame in frames] for frames in shown.by_series()]
    assert times == [[1, 4], [2], [3], [5], [6]]


def awkward() -> dict[str, Drawn]:
    """Sessions that a picture must survive."""
    rows = [row(float(k), "r1", "a") for k in range(5)]
    spectra = [replace_spectrum(frame, np.array([0.0, 1.0, k])) for k, frame in enumerate(drawn(*rows).frames)]
    nan = {f"OS_{part}": np.nan for part in ("mean", "lo", "hi", "sd_frame")}
    note = DrawnNote(2.0, Reason.NO_PRE_EDGE.value, 1, 3, "r1", 2, HOSTILE)
    many = [decision(k, float(k % 5), rule=f"rule {k % 20}") for k in range(100)]
    hostile = [decision(1, 2.0, rule=HOSTILE, status="rejected", action="set", args='{"signal": "$x", "value": 1}')]
    computed = rule(kind="plateau", duration_s=1, tolerance=0.5)
    return {
        "no frame": drawn(),
        "no frame but notes": drawn(notes=[note], set_aside={note.reason: 3}),
        "one frame": drawn(rows[0]),
        "two frames at one time": drawn(row(1, "r1"), row(1, "r1")),
        "many decisions": drawn(*rows, decisions=many),
        "a hostile name": drawn(*(row(float(k), "r1", HOSTILE, file=HOSTILE) for k in range(3)), decisions=hostile),
        "letters that no font has": drawn(row(1, "r1", "钴酸锂 \U0001f9ea")),
        "many samples": drawn(*(row(float(k), f"r{k}", f"sample {k}") for k in range(30))),
        "two samples, several edges": drawn(row(1, "r1", "a"), row(2, "r2", "b"), row(3, "r1", "a", "Ni")),
        "all unfamiliar": drawn(*(one | {"ood_score": 3.0} for one in rows)),
        "no number": drawn(*(one | nan for one in rows)),
        "no scatter": drawn(*({k: v for k, v in one.items() if not k.endswith("sd_frame")} for one in rows)),
        "no descriptor": drawn(*({k: v for k, v in one.items() if k[:3] not in ("OS_", "CN_")} for one in rows)),
        "set aside": drawn(*rows, notes=[note], set_aside={note.reason: 1}),
        "spectra": replace(drawn(*rows), frames=spectra, grid=np.arange(3.0)),
        "spectra of another model": replace(drawn(*rows), frames=spectra, grid=np.arange(4.0)),
        "rules": drawn(*rows, rules=(rule(above=3.5), computed.model_copy(update={"name": "p"}))),
        "a bar far away": drawn(*rows, rules=(rule(above=300.0),)),
        "a sample of the frames": replace(drawn(*rows), count=5000, rules=(rule(above=3.5),)),
    }


def replace_spectrum(frame: DrawnFrame, spectrum: np.ndarray) -> DrawnFrame:
    return replace(frame, spectrum=spectrum)


@pytest.mark.parametrize("name", awkward())
def test_any_session_is_drawn_without_a_warning(name: str, tmp_path: Path):
    shown = awkward()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_operando(tmp_path / "operando.png", shown, None)
        assert (tmp_path / "operando.png").read_bytes().startswith(b"\x89PNG")
        if shown.frames:
            assert save_svg(quality_figure(shown)).startswith(b"<?xml")


def test_equal_conditions_of_rules_share_a_panel():
    """As of a plan with one rule per stage, of which a picture would show the first two."""
    one = rule(kind="plateau", duration_s=8, tolerance=0.5)
    other = rule(kind="plateau", duration_s=9, tolerance=0.5)
    rules = (one, one.model_copy(update={"name": "p"}), other.model_copy(update={"name": "q"}))
    figure = operando_figure(drawn(*(row(float(k), "r1") for k in range(20)), rules=rules), None)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    panels = [title.split(":")[0] for title in titles if title.startswith("judged by")]
    assert panels == ["judged by r and 1 rule like it", "judged by q"]


def test_the_title_of_a_panel_ends_with_the_bar_not_before_it():
    """As of the story damage, with four rules of one condition."""
    change = rule(kind="change", baseline="level", false_alarm_frames=1000)
    rules = [change.model_copy(update={"name": f"damage on spot {k}"}) for k in range(1, 5)]
    figure = operando_figure(drawn(*(row(float(k), "r1") for k in range(30)), rules=tuple(rules)), None)
    [title] = [t for axes in figure.axes if (t := axes.get_title(loc="left")).startswith("judged by")]
    assert title == "judged by damage on spot 1 and 3 rules like it: OS, evidence of a change, bar 1000"


def test_what_a_rule_judges_of_the_alignment_has_a_panel():
    noisy = rule(quantity="noise", above=0.01)
    rows = [row(float(k), "r1", noise=0.002 * k) for k in range(8)]
    [panel] = [
        axes
        for axes in operando_figure(drawn(*rows, rules=(noisy,)), None).axes
        if axes.get_title(loc="left") == "judged by r: noise, bar 0.01"
    ]
    np.testing.assert_allclose(np.asarray(panel.lines[0].get_ydata()), [0.002 * k for k in range(8)])


def test_the_header_names_sample_edge_dates_decisions_and_what_was_set_aside():
    note = DrawnNote(2.0, "no pre-edge", 1, 3, "r1", 2)
    rows = [row(float(k), "r1", "LCO", scan_id=7) for k in range(3)]
    shown = drawn(*rows, decisions=[decision(1, 2.0)], notes=[note], set_aside={"no pre-edge": 4}, models=("co-k",))
    said = texts(operando_figure(shown, None))
    assert said[0] == "LCO, scan 7, Co K"
    assert said[1].startswith("1970-01-01 ")
    assert said[1].endswith("3 frames,  model co-k")
    assert {"r: stop, sent, at 2 s", "× set aside: 4 no pre-edge"} <= set(said)


def test_each_sample_has_a_column_and_the_overview_has_all():
    shown = drawn(*(row(float(k), f"r{k}", f"s{k}") for k in range(3)))
    figure = operando_figure(shown, None)
    _, overview, *blocks = figure.subfigs
    assert [len(part.axes) > 1 for part in blocks] == [True, True]
    assert [text.get_text() for text in overview.axes[0].texts] == ["s0", "s1", "s2"]
    titles = [t.get_text() for part in blocks for axes in part.axes for t in axes.texts if "\n" in t.get_text()]
    assert [t.split("\n")[0] for t in titles if t.startswith("s")] == ["s0, Co K", "s1, Co K", "s2, Co K"]
    alone = part_of_series(shown, "s1", "Co")
    assert texts(operando_figure(alone, None))[0] == "s1, Co K"


@pytest.mark.parametrize("late", [True, False])
def test_an_anchored_oxidation_state_is_drawn_from_its_first_frame_on(late: bool):
    anchored = {f"OS_anchored_{end}": 3.2 for end in ("mean", "lo", "hi", "sd_frame")}
    axes = trend_of(drawn(row(1, "r1", **({} if late else anchored)), row(2, "r1", **anchored)))
    assert np.array_equal(line(axes, "frames"), [np.nan if late else 3.2, 3.2], equal_nan=True)
    assert list(line(axes, "not anchored")) == [3.0, 3.0]


def test_a_process_draws_the_same_picture(tmp_path: Path):
    shown = drawn(row(1, "r1", "a"), row(2, "r2", "b"), rules=(rule(above=3.5),))
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


@pytest.mark.parametrize(
    ("kinds", "last"), [(8, "rule 7: stop"), (9, "rule 8: stop"), (10, "and 2 more kinds of decisions")]
)
def test_a_kind_of_decision_is_not_left_out_to_say_that_one_is(kinds, last):
    shown = drawn(row(1.0, "r1"), decisions=[decision(k, float(k), rule=f"rule {k}") for k in range(kinds)])
    assert lines_of(shown, columns_of(shown))[-1][0].startswith(last)


def test_decisions_of_a_kind_share_a_line_and_a_number_and_are_counted():
    acknowledged = {"status": "acknowledged"}
    made = [
        decision(1, 1.0, rule="s", **acknowledged),
        decision(2, 1.0, rule="u", action="unload", **acknowledged),
        decision(3, 2.0, action="repeat_frame", **acknowledged),
        decision(4, 3.0, action="repeat_frame", **acknowledged),
        decision(5, 4.0, rule="hot", action="set", status="rejected", args='{"signal": "furnace", "value": 6}'),
    ]
    shown = drawn(*(row(float(k), "r1") for k in range(1, 5)), decisions=made)
    said = [(number, text) for text, _, _, number in lines_of(shown, columns_of(shown)) if number]
    assert said == [
        (1, "s: stop, acknowledged, at 0 s"),
        (2, "u: unload, acknowledged, at 0 s"),
        (3, "r: repeat_frame, acknowledged, 2 times, 1–2 s"),
        (4, "hot: set furnace to 6, rejected, at 3 s"),
    ]
    tags = [t.get_text() for part in operando_figure(shown, None).subfigs for a in part.axes for t in a.texts]
    assert [tag for tag in tags if tag in ("1,2", "3", "4")] == ["1,2", "3", "3", "4"]


def test_the_bars_of_rules_are_drawn_on_the_panel_of_their_quantity_with_their_actions():
    rules = (
        rule(above=3.5).model_copy(update={"action": "stop"}),
        Rule.model_validate({"name": "b", "trigger": {"kind": "band", "quantity": "CN", "low": 4.5, "high": 5.5}}),
    )
    assert list(bars_of(rules, "OS")) == [(3.5, "stop above 3.5")]
    assert list(bars_of(rules, "CN")) == [(4.5, "notify from 4.5"), (5.5, "notify to 5.5")]
    assert list(bars_of(rules, "OS_anchored")) == [(3.5, "stop above 3.5 (not anchored)")]
    axes = trend_of(drawn(*(row(k, "r1", OS_mean=3 + k / 10) for k in range(4)), rules=rules))
    assert [t.get_text() for t in axes.texts] == ["stop above 3.5 e"]
    assert axes.get_ylim()[1] > 3.5


def test_the_panel_shows_the_trend_and_not_the_common_error():
    """The interval is ±0.5 e, the trend 0.2 e."""
    axes = trend_of(drawn(*(row(k, "r1", OS_mean=3 + k / 50) for k in range(11))))
    low, high = axes.get_ylim()
    assert 0.2 < high - low < 0.35
    far = view_of(np.array([3.0, 3.1]), np.array([0.001]), [9.0])
    assert far.high < 3.2


def test_the_judged_line_is_what_the_rule_compares():
    values = 3 + 0.01 * np.arange(20) + 0.05 * (np.arange(20) % 2)
    rows = [row(float(k), "r1", OS_mean=float(v)) for k, v in enumerate(values)]
    shown = drawn(*rows, rules=(rule(above=3.5, window_frames=7),))
    axes = trend_of(shown)
    judged = line(axes, "judged: line through 7 frames")
    assert len(judged) == 14  # from the seventh frame on
    assert np.abs(np.diff(judged)).max() < 0.03 < np.abs(np.diff(values)).max()
    assert not [one for one in trend_of(replace(shown, count=99)).lines if "judged" in str(one.get_label())]


def test_the_panels_are_of_what_rules_judge_then_of_what_changes_most():
    more = {
        f"{name}_{part}": value
        for name in ("mean_bond", "MOOD")
        for part, value in (("mean", 2.0), ("lo", 1), ("hi", 3), ("sd_frame", 0.01))
    }
    rows = [row(float(k), "r1", **more | {"MOOD_mean": 2 + k / 10}) for k in range(9)]
    shown = replace(drawn(*rows), descriptors={"OS": "e", "CN": "", "MOOD": "Å", "mean_bond": "Å"})
    [column] = columns_of(shown)
    assert chosen(column, shown, 2) == (["mean_bond", "MOOD"], ["CN"])
    judged = replace(shown, rules=(rule(quantity="CN", below=4),))
    assert chosen(column, judged, 1) == (["CN"], ["mean_bond", "MOOD"])


def test_frames_that_the_model_does_not_know_are_marks_without_line_and_band():
    axes = trend_of(drawn(row(1, "r1"), row(2, "r1", ood_score=1.4, OS_mean=1.5), row(3, "r1")))
    assert np.array_equal(line(axes, "frames"), [3.0, np.nan, 3.0], equal_nan=True)
    marks = next(one for one in axes.lines if one.get_label() == "unlike the training spectra")
    low, high = axes.get_ylim()
    assert marks.get_marker() == "v"
    assert low < np.asarray(marks.get_ydata())[0] < low + 0.1 * (high - low)  # out of view, so at the edge


def test_the_temperature_is_drawn_where_there_is_no_voltage():
    for readings, label in (
        ({"sample_temperature": 300.0}, "sample_temperature"),
        ({"temperature": 300.0}, "temperature\n(°C)"),
        ({"temperature": 25.0, "voltage": 3.9}, "voltage\n(V)"),
    ):
        shown = replace(drawn(row(1, "r1", **readings), row(2, "r1", **readings)), units={"temperature": "degC"})
        [column] = columns_of(shown)
        axes = Figure().add_subplot()
        name = driver_of(column)
        assert name is not None
        draw_driver(axes, column, name, shown)
        assert axes.get_ylabel() == label


def test_a_rule_on_the_score_at_its_limit_draws_no_second_line():
    for level, lines in ((OOD_LIMIT, 1), (0.5, 2)):
        axes = Figure().add_subplot()
        [column] = columns_of(drawn(row(1, "r1"), row(2, "r1")))
        draw_score(axes, column, [rule(quantity="ood_score", below=level)])
        assert sum(len(set(np.asarray(one.get_ydata()))) == 1 and one.get_ls() != "-" for one in axes.lines) == lines


def test_lines_break_between_entries():
    entries = ["coordination (CN) 5.87", "bond spread 0.0152 Å", "$y$"]
    assert listed("last:", entries, 54) == "last: coordination (CN) 5.87, bond spread 0.0152 Å,\n\\$y\\$"
    assert listed("last:", ["x" * 80, "y"], 60) == f"last: {'x' * 80},\ny"


def test_a_reading_that_hardly_changes_has_whole_numbers_as_labels():
    shown = drawn(*(row(n, "r1", voltage=3.75 + 1e-4 * n) for n in range(5)))
    [column] = columns_of(shown)
    with any_letters():
        axes = Figure().add_subplot()
        draw_driver(axes, column, "voltage", shown)
        axes.figure.draw_without_rendering()
    assert axes.yaxis.get_offset_text().get_text() == ""
