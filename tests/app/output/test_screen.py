"""What a session shows at any size: no line too long, no number cut, and what a person must see."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_frames import frame, started
from rich.text import Text

from xas_agent.agent.decide import Condition, Standing
from xas_agent.app.output.recorder import Recorder
from xas_agent.app.output.screen import Facts, Screen, Waiting

VALUES = {"OS_mean": 3.2547, "OS_lo": 2.75, "OS_hi": 3.75, "OS_sd_frame": 0.021}
ANCHORED = {"OS_anchored_mean": 3.312, "OS_anchored_lo": 3.25, "OS_anchored_hi": 3.37}
RULE = Standing("half", "stop", (Condition("OS", "above 3.5 e", "e", "", "line of 21", 3.484, (3.5,), -0.016),))

texts = st.text(max_size=60)
numbers = st.one_of(st.floats(), st.floats(-1e3, 1e3), st.just(0.0))
positive = st.floats(0, 1e9)
conditions = st.builds(
    Condition,
    quantity=texts,
    bar=texts,
    unit=st.sampled_from(["", "e", "e/h", "s"]),
    what=st.sampled_from(["", "rate", "change in 30 s"]),
    how=st.sampled_from(["", "line of 21"]),
    value=st.one_of(st.none(), numbers),
    bars=st.lists(numbers, max_size=2).map(tuple),
    beyond=numbers,
    negated=st.booleans(),
)
rules = st.builds(
    Standing,
    rule=texts,
    action=st.sampled_from(["stop", "repeat_frame"]),
    conditions=st.lists(conditions, max_size=3).map(tuple),
    holds=st.booleans(),
    followed=st.booleans(),
    decisions_left=st.integers(0, 2),
)
facts = st.builds(
    Facts,
    connected=st.booleans(),
    paused=texts,
    paused_s=positive,
    halted=texts,
    dashboard=texts,
    waiting=st.lists(
        st.builds(Waiting, id=st.just("1c9f"), what=texts, rule=texts, reason=texts, left_s=positive), max_size=5
    ),
    standing=st.lists(rules, max_size=12),
    points=st.one_of(st.none(), st.tuples(st.integers(0, 999), st.integers(0, 999))),
    lost=st.dictionaries(texts, st.integers(0, 10**9), max_size=3),
    ending=st.booleans(),
    unanswered=st.integers(0, 10**6),
    stuck_s=positive,
    ended=st.booleans(),
)
rows = st.fixed_dictionaries(
    {
        "sample": texts,
        "file": texts,
        "scan_id": st.integers(0, 10**9),
        "frame_time": st.one_of(numbers, st.floats(1e9, 2e9)),
        "ood_score": numbers,
        "latency_ms": positive,
        "flags": st.sampled_from(["", "out of distribution"]),
    },
    optional={
        **{f"OS_{part}": numbers for part in ("mean", "lo", "hi", "sd_frame", "anchored_mean")},
        "CN_mean": numbers,
        "temperature": numbers,
    },
)


def decision(recorder: Recorder, id: str, **more: Any) -> None:
    about = {"rule": "half", "action": "stop", "status": "acknowledged", "status_reason": "", "reason": "high"}
    data = {"id": id, "sample": "", "scan_id": 0, "file": "", "element": "Co", **about, **more}
    recorder("event", {"descriptor": "decisions/run", "time": 1.7e9, "data": data})


def said(lines: list[Text]) -> str:
    return "\n".join(line.plain for line in lines)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(rows, max_size=6),
    st.lists(st.tuples(texts, texts), max_size=6),
    facts,
    st.integers(10, 220),
    st.integers(1, 70),
    st.booleans(),
)
def test_the_screen_fits_whatever_it_says(frames, decisions, now: Facts, width: int, height: int, ascii: bool):
    recorder = started(Recorder())
    for number, row in enumerate(frames, 1):
        frame(recorder, number, **row)
    for number, (reason, answer) in enumerate(decisions):
        decision(recorder, str(number), reason=reason, status_reason=answer, status="rejected")
    lines = Screen(recorder, 100, {"OS": "e"}, ascii).lines(now, width, height)
    assert len(lines) <= height
    for line in lines:
        assert line.cell_len <= width
        assert "\n" not in line.plain
        assert line.plain.isprintable()
        assert line.plain.isascii() or not ascii
        assert not line.spans or max(span.end for span in line.spans) <= len(line.plain)


def test_the_address_of_the_dashboard_stays_on_the_screen() -> None:
    recorder = started(Recorder())
    for number in range(1, 15):
        frame(recorder, number, **VALUES)
    address = "http://127.0.0.1:8642/?token=XhLX1orl0BJjTyBVWKa4db4og_MrEiLr"
    now = Facts(standing=[RULE], waiting=[Waiting("1c9f", "pause", "half", "high", 540)], dashboard=address)
    assert f"dashboard  {address}" in said(Screen(recorder).lines(now, 80, 20))
    assert "dashboard" not in said(Screen(recorder).lines(replace(now, ended=True), 80, 20))


@settings(max_examples=60, deadline=None)
@given(texts, st.integers(0, 20), st.integers(0, 20), st.sampled_from([(80, 19), (80, 24), (100, 30), (160, 40)]))
def test_from_80_columns_on_what_matters_is_whole(name: str, more_rules: int, decisions: int, size: tuple[int, int]):
    recorder = started(Recorder())
    for number in range(1, 15):
        frame(recorder, number, sample=name, scan_id=252_000, **VALUES, **ANCHORED, voltage=3.875, latency_ms=1234.5)
    for number in range(decisions):
        decision(recorder, str(number), reason=name or "high")
    recorder.set_aside["I0 dropped"] = 3
    recorder.notifications_failed, recorder.notification_failure = 1, "mail: refused"
    low = Standing(name or "low", "notify", (Condition("OS", "below 2 e", "e", "", "", 3.255, (2.0,), -1.255),))
    now = Facts(
        standing=[RULE, *[low] * more_rules],
        paused=f"by half: {name}",
        paused_s=72,
        waiting=[Waiting("1c9f", "pause", name, name, 540)],
        connected=False,
    )
    text = said(Screen(recorder, 100, {"OS": "e", "OS_anchored": "e"}).lines(now, *size))
    for whole in (
        *("OS 3.255 e", "± 0.035 e frame to frame", "90 %: 2.75…3.75 e", "anchored 3.312 e (3.25…3.37)"),
        *("14 of 100 frames", "score 0.10 (limit 1)", "scan 252000", "PAUSED  last frame 0."),
        *("OS 3.484 e", "above 3.5 e", "0.016 e to go", "paused 1 min 12 s ago by half", "xas-agent resume"),
        *("xas-agent approve 1c9f", "xas-agent reject 1c9f", "SOURCE NOT CONNECTED", "1 NOTIFICATION FAILED"),
    ):
        assert whole in text
    assert ("acknowledged" in text) == (decisions > 0)


def test_the_state_in_words():
    now = [0.0]
    recorder = Recorder()
    screen = Screen(recorder, clock=lambda: now[0])

    def state(**more: Any) -> str:
        return said(screen.lines(Facts(**more), 120, 24)[1:2]).split("  ")[0]

    assert state() == "WAITING for the first frame"
    started(recorder)
    frame(recorder, 1, **VALUES)
    assert state() == "MEASURING"
    assert state(ending=True, unanswered=3) == "ENDING"
    assert state(connected=False) == "NOT CONNECTED"
    assert state(connected=False, paused="by x") == "PAUSED"
    assert state(halted="emergency stop by ada", paused="by x") == "EMERGENCY STOP"
    assert state(ended=True, connected=False) == "ENDED"
    assert "NO PROGRESS FOR 40 s" in said(screen.lines(Facts(stuck_s=40), 120, 24))
    assert "500 documents wait for an answer" in said(screen.lines(Facts(unanswered=500), 120, 24))
    recorder("stop", {"run_start": "a/run"})
    assert state() == "BETWEEN RUNS"


def test_the_age_of_the_last_frame_grows_and_a_missing_frame_is_pointed_out():
    now = [0.0]
    recorder = started(Recorder())
    for number in range(1, 6):
        frame(recorder, 3 * number, **VALUES)  # each 3 s
    screen = Screen(recorder, clock=lambda: now[0])
    recorder.frame_at = 100.0

    def age_at(time: float, **more: Any) -> str:
        now[0] = time
        return said(screen.lines(Facts(**more), 120, 24)[1:2])

    assert "last frame 2.5 s ago" in age_at(102.5)
    assert "last frame 14 s ago" in age_at(114)
    assert "! NO FRAME FOR 16 s" in age_at(116)
    assert "last frame 2 min 00 s ago" in age_at(220, paused="by x")
    recorder("stop", {"run_start": "a/run"})
    assert "last frame 2 min 00 s ago" in age_at(220)


def test_of_many_rules_those_that_hold_come_first():
    recorder = started(Recorder())
    frame(recorder, 1, **VALUES)
    far = [Standing(f"far {k}", "notify", RULE.conditions) for k in range(9)]
    holds = Standing("near", "stop", RULE.conditions, holds=True)
    text = said(Screen(recorder).lines(Facts(standing=[*far, holds]), 80, 9))
    assert "RULE (" in text
    assert "of 10)" in text
    assert "stop: near" in text
    assert "HOLDS, 0.016 e to go" in text


def test_conditions_and_states_of_rules_in_words():
    recorder = started(Recorder())
    frame(recorder, 1, **VALUES)
    within = Condition("OS", "within 3…4 e", "e", "", "", 3.5, (3.0, 4.0), 0.5, negated=True)
    silence = Condition("silence", "60 s", "s", "", "", 72.0, (60.0,), 12.0)
    unknown = Condition("OS", "above 3.5 e", "e", "", "line of 21")
    rate = Condition("OS", "above 0.1 e/h", "e/h", "rate", "", 1234.0, (0.1,), 1233.9)
    standing = [
        Standing("both", "stop", (within, silence)),
        Standing("done", "stop", (unknown,), decisions_left=0),
        Standing("later", "load", (rate,), followed=False),
        Standing("fast", "notify", (rate,)),
    ]
    text = said(Screen(recorder).lines(Facts(standing=standing), 100, 24))
    for words in (
        *("not within 3…4 e  0.5 e to go", "silence 1 min 12 s", "12 s past", "has decided, not judged yet"),
        *("not in this stage", "OS rate +1234 e/h", "1234 e/h past"),
    ):
        assert words in text


def test_the_course_shows_the_judged_quantity_without_frames_that_the_model_does_not_know():
    recorder = started(Recorder())
    for number in range(1, 41):
        unlike = {"ood_score": 1.4, "OS_mean": 1.4} if number in (20, 21) else {"OS_mean": 3 + number / 100}
        frame(recorder, number, **VALUES | unlike)
    text = said(Screen(recorder, units={"OS": "e"}).lines(Facts(standing=[RULE]), 160, 40))
    assert "OS in 38 frames over 39 s, 2 unlike ones left out, bar 3.5" in text
    assert "3.500 ┤" in text
    assert "3.010 ┤" in text
    assert "1.4!" not in text
    plain = said(Screen(recorder, ascii=True).lines(Facts(standing=[RULE]), 160, 40))
    assert "3.500 |--" in plain
    assert "*" in plain


@pytest.mark.parametrize("width", [80, 160])
def test_frames_that_differ_are_named(width: int):
    recorder = started(Recorder())
    for number, name in enumerate(("Li[CoO2]", "Li[NiO2]"), 1):
        frame(recorder, number, sample=name, scan_id=252_000 + number, **VALUES)
        decision(recorder, name, sample=name)
    text = said(Screen(recorder).lines(Facts(), width, 40))
    assert text.startswith("Li[NiO2], scan 252002, Co")
    assert "2 samples" in text
    assert text.count("Li[CoO2]") == 2
    for column in ("MEASURED", "SAMPLE"):
        assert column in text


def test_before_the_first_frame_the_rules_are_shown():
    rule = Standing("half", "stop", (Condition("OS", "above 3.5 e", "e"),))
    text = said(Screen(Recorder(), 80).lines(Facts(standing=[rule], points=(7, 0)), 80, 19))
    assert "0 of 80 frames" in text
    assert "scan: 7 of ? points" in text
    assert "stop: half  OS      above 3.5 e  not judged yet" in text


def test_descriptors_without_a_meaning_for_mixtures_are_not_shown() -> None:
    """The agent publishes them, but does not name them in the hints."""
    recorder = started(Recorder())
    hidden = {name.replace("OS", "CN2"): value for name, value in VALUES.items()}
    for number in range(1, 15):
        frame(recorder, number, **VALUES, **hidden)
    lines = [line.plain for line in Screen(recorder, 0, {"OS": "e", "CN2": ""}, False).lines(Facts(), 160, 50)]
    assert any(line.startswith("OS  ") for line in lines)
    assert not any("CN2" in line for line in lines)
