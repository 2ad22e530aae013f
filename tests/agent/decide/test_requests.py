"""What becomes of a decision: advice, a question to a person, a request, or a refusal."""

import json
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from xas_agent.agent.decide import ControlSettings, Requests
from xas_agent.agent.types import Decision, Reply


class Beamline:
    """A control that carries everything out, and remembers it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        self.done.append(action)
        return Reply("acknowledged", "done")

    def close(self) -> None:
        pass


def decision(action="stop", run: str = "run", args: Mapping[str, Any] | None = None) -> Decision:
    return Decision(str(uuid.uuid4()), "rule", action, "because", run, 1.0, 0.9, (), args=args or {})


class Desk:
    """Requests with a beamline, as the agent's thread uses them."""

    def __init__(self, **settings: Any) -> None:
        self.beamline = Beamline()
        self.requests = Requests(
            ControlSettings(**{"enabled": True, "allow": ["stop", "pause"], **settings}), self.beamline
        )

    def statuses(self) -> list[tuple[str, str]]:
        self.requests.send()
        self.requests.drain(10.0)
        return [(d.status, d.status_reason) for d in self.requests.changes()]


@pytest.fixture
def desk(request: pytest.FixtureRequest):
    made = Desk(**getattr(request, "param", {}))
    yield made
    made.requests.close(hurried=True)


@pytest.mark.parametrize("desk", [{"allow": ["stop", "pause", "resume"]}], indirect=True)
def test_of_requests_that_contradict_each_other_on_one_frame_the_safest_is_sent(desk: Desk):
    for action in ("stop", "pause", "resume", "notify"):
        desk.requests.propose(decision(action))
    desk.requests.propose(replace(decision("resume"), time=2.0))  # of the next frame
    superseded = ("rejected", "superseded: the rule rule requests stop on the same frame")
    assert desk.statuses().count(superseded) == 2
    assert sorted(desk.beamline.done) == ["resume", "stop"]


@pytest.mark.parametrize("desk", [{"allow": ["pause"]}], indirect=True)
def test_a_request_that_is_refused_supersedes_none(desk: Desk):
    for action in ("stop", "pause"):
        desk.requests.propose(decision(action))
    assert ("rejected", "stop is not among the allowed actions") in desk.statuses()
    assert desk.beamline.done == ["pause"]


def test_one_that_an_earlier_process_sent_counts_as_sent(desk: Desk):
    desk.requests.halt("ada", "smoke")
    desk.requests.take_up(replace(decision("pause"), status="sent"), age_s=1.0)
    desk.requests.send()
    desk.requests.drain(10.0)
    [(status, was_sent)] = [(d.status, d.id in desk.requests.sent) for d in desk.requests.changes()]
    assert (status, was_sent) == ("rejected", True)


def with_settings(**settings: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("desk", [settings], indirect=True)


def test_allowed_action_is_sent(desk: Desk):
    assert desk.requests.propose(decision()).status == "proposed"
    assert desk.statuses() == [("sent", ""), ("acknowledged", "done")]
    assert desk.beamline.done == ["stop"]


@with_settings(enabled=False)
def test_disabled_controls_only_advise(desk: Desk):
    proposed = desk.requests.propose(decision())
    assert (proposed.status, proposed.status_reason) == ("proposed", "controls are off: advice only")
    assert desk.statuses() == []
    assert desk.requests.open == {}


@with_settings(authority="act", authority_of={"stop": "advise"})
def test_authority_of_one_action(desk: Desk):
    assert desk.requests.propose(decision("stop")).status_reason == "advice only"
    assert desk.requests.propose(decision("pause")).status_reason == ""
    desk.statuses()
    assert desk.beamline.done == ["pause"]


def test_action_that_is_not_allowed_is_rejected(desk: Desk):
    desk.requests.propose(decision("resume"))
    assert desk.statuses() == [("rejected", "resume is not among the allowed actions")]
    assert desk.beamline.done == []


@with_settings(allow=["set"], settable={"furnace": (20, 400), "dose": (0, 1)})
@pytest.mark.parametrize(
    ("args", "refusal"),
    [
        ({"signal": "furnace", "value": 20}, ""),
        ({"signal": "furnace", "value": 400}, ""),
        ({"signal": "furnace", "value": 401}, "401 for furnace is outside 20 … 400, as in control.settable"),
        ({"signal": "furnace", "value": -1e9}, "-1e+09 for furnace is outside 20 … 400, as in control.settable"),
        ({"signal": "oven", "value": 20}, "oven is not among the signals in control.settable"),
        ({"signal": "furnace", "value": float("nan")}, "args of set: key value"),
        ({"signal": "furnace"}, "args of set: key value: missing"),
    ],
)
def test_values_are_set_within_their_limits_only(desk: Desk, args, refusal):
    desk.requests.propose(decision("set", args=args))
    statuses = desk.statuses()
    if refusal:
        ((status, reason),) = statuses
        assert status == "rejected"
        assert refusal in reason
    else:
        assert [status for status, _ in statuses] == ["sent", "acknowledged"]
    assert desk.beamline.done == ([] if refusal else ["set"])


@with_settings(allow=[])
def test_notify_needs_no_permission(desk: Desk):
    desk.requests.propose(decision("notify"))
    assert [status for status, _ in desk.statuses()] == ["acknowledged"]


@with_settings(limits={"stop": {"per_run": 1, "per_hour": 2}})
def test_limits_hold_per_run_and_per_hour(desk: Desk):
    for run in ("a", "a", "b", "c"):
        desk.requests.propose(decision(run=run))
    answers = [(status, why) for status, why in desk.statuses() if status in ("acknowledged", "rejected")]
    assert sorted(answers) == [
        ("acknowledged", "done"),
        ("acknowledged", "done"),
        ("rejected", "limit: 1 of stop per run"),
        ("rejected", "limit: 2 of stop per hour"),
    ]
    assert desk.beamline.done == ["stop", "stop"]


class TestConfirmation:
    CONFIRM = with_settings(authority="confirm", confirm_within_s=600)

    @CONFIRM
    def test_nothing_is_sent_before_a_person_approves(self, desk: Desk):
        asked = desk.requests.propose(decision())
        assert asked.status_reason == "waits 600 s for approval"
        assert desk.statuses() == []
        [(waiting, remaining_s)] = desk.requests.unconfirmed
        assert waiting.id == asked.id
        assert 590 < remaining_s <= 600
        approved = desk.requests.approve(asked.id, "ada")
        assert (approved.status, approved.status_reason) == ("approved", "approved by ada")
        assert desk.statuses() == [("sent", ""), ("acknowledged", "done")]
        assert desk.requests.unconfirmed == []

    @CONFIRM
    def test_rejected_one_is_not_sent_and_not_approved_later(self, desk: Desk):
        asked = desk.requests.propose(decision())
        rejected = desk.requests.reject(asked.id, "ada", "too early")
        assert (rejected.status, rejected.status_reason) == ("rejected", "rejected by ada: too early")
        with pytest.raises(KeyError):
            desk.requests.approve(asked.id, "bob")
        assert desk.statuses() == []
        assert desk.requests.open == {}

    @with_settings(authority="confirm", confirm_within_s=1e-9)
    def test_unanswered_one_expires(self, desk: Desk):
        asked = desk.requests.propose(decision())
        assert desk.statuses() == [("expired", "nobody approved it within 1e-09 s")]
        with pytest.raises(KeyError):
            desk.requests.approve(asked.id, "ada")
        assert desk.beamline.done == []

    @CONFIRM
    def test_it_waits_on_after_a_restart(self, desk: Desk):
        before = replace(decision(), status_reason="waits 600 s for approval")
        desk.requests.take_up(before, age_s=100.0)
        [(waiting, remaining_s)] = desk.requests.unconfirmed
        assert (waiting.id, remaining_s) == (before.id, pytest.approx(500, abs=5))
        desk.requests.take_up(decision(), age_s=700.0)
        assert [status for status, _ in desk.statuses()] == ["expired"]

    @CONFIRM
    def test_approved_one_is_sent_after_a_restart(self, desk: Desk):
        desk.requests.take_up(replace(decision(), status="approved", status_reason="approved by ada"), age_s=1.0)
        assert desk.statuses() == [("sent", ""), ("acknowledged", "done")]

    @CONFIRM
    def test_what_a_person_ordered_is_not_asked_for_after_a_restart(self, desk: Desk):
        desk.requests.take_up(replace(decision("pause"), rule="operator"), age_s=1.0)
        assert desk.statuses() == [("sent", ""), ("acknowledged", "done")]


class TestEmergencyStop:
    @with_settings(allow=["stop", "pause", "resume"], authority_of={"pause": "confirm"})
    def test_rules_can_only_stop_until_it_is_released(self, desk: Desk):
        asked = desk.requests.propose(decision("pause"))
        desk.requests.propose(decision("resume"))  # not sent yet
        desk.requests.halt("ada", "smoke")
        assert [d.id for d in desk.requests.reject_all("ada")] == [asked.id]
        desk.requests.order(decision("stop"))
        desk.requests.propose(decision("resume"))
        desk.requests.propose(decision("stop"))
        assert desk.statuses().count(("rejected", "emergency stop by ada: smoke")) == 2
        assert desk.beamline.done == ["stop", "stop"]
        desk.requests.release()
        desk.requests.propose(decision("resume"))
        desk.statuses()
        assert desk.beamline.done == ["stop", "stop", "resume"]

    @with_settings(allow=["pause", "resume"])
    def test_what_waits_in_a_lane_is_not_sent(self, desk: Desk):
        began, go_on = threading.Event(), threading.Event()

        def slow(id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
            desk.beamline.done.append(action)
            began.set()
            go_on.wait(10)
            return Reply("acknowledged")

        desk.beamline.request = slow  # type: ignore[method-assign]
        desk.requests.propose(decision("pause"))
        desk.requests.propose(replace(decision("resume"), time=2.0))  # of the next frame
        desk.requests.send()
        assert began.wait(10)
        desk.requests.halt("ada", "smoke")
        go_on.set()
        assert ("rejected", "emergency stop by ada: smoke") in desk.statuses()
        assert desk.beamline.done == ["pause"]

    @with_settings(limits={"stop": {"per_run": 1}})
    def test_it_and_the_limits_hold_after_a_restart(self, desk: Desk):
        desk.requests.propose(decision("stop"))
        desk.statuses()
        desk.requests.halt("ada", "smoke")
        again = Desk(limits={"stop": {"per_run": 1}})
        again.requests.restore({k: json.loads(json.dumps(v)) for k, v in desk.requests.memory().items()})
        again.requests.propose(decision("pause"))
        again.requests.propose(decision("stop"))
        assert sorted(again.statuses()) == [
            ("rejected", "emergency stop by ada: smoke"),
            ("rejected", "limit: 1 of stop per run"),
        ]
        again.requests.close(hurried=True)


def test_memory_is_written_when_it_changed(desk: Desk):
    assert desk.requests.memory() == {}
    desk.requests.propose(decision())
    assert desk.requests.memory()
    assert desk.requests.memory() == {}
    desk.requests.halt("ada", "")
    assert desk.requests.memory()
    desk.requests.release()
    assert desk.requests.memory()
    assert desk.requests.memory() == {}


@with_settings(allow=["stop", "queue_plan"], authority="confirm")
def test_what_concerns_a_run_expires_with_it(desk: Desk):
    for action in ("stop", "queue_plan"):
        desk.requests.propose(decision(action))
    desk.requests.run_stopped("run")
    assert desk.statuses() == [("expired", "the run stopped before an approval")]
    assert [d.action for d, _ in desk.requests.unconfirmed] == ["queue_plan"]


def test_pause_is_known_until_it_ends(desk: Desk):
    desk.requests.propose(decision("pause"))
    desk.statuses()
    assert desk.requests.paused is not None
    assert time.monotonic() - desk.requests.paused.since < 60
    desk.requests.order(decision("resume"))
    desk.statuses()
    assert desk.requests.paused is None
    desk.requests.propose(decision("pause"))
    desk.statuses()
    desk.requests.forget("run")
    assert desk.requests.paused is None


def repeat_frame(frame: int) -> Decision:
    return decision("repeat_frame", args={"count_factor": 4, "run": "run", "frame": frame})


@with_settings(allow=["repeat_frame"])
@pytest.mark.parametrize(("newest", "done"), [(8, ["repeat_frame"]), (9, [])])
def test_a_frame_is_repeated_until_a_newer_one_is_measured(desk: Desk, newest: int, done: list[str]):
    desk.requests.measured("another run", 99)
    desk.requests.measured("run", newest)
    desk.requests.measured("run", 7)  # out of order
    desk.requests.propose(repeat_frame(8))
    statuses = desk.statuses()
    assert desk.beamline.done == done
    if not done:
        assert statuses == [("rejected", "frame 8 was to be repeated; the run is at frame 9 by now")]


@with_settings(allow=["repeat_frame"], authority="confirm")
def test_an_approval_after_a_newer_frame_comes_too_late(desk: Desk):
    desk.requests.measured("run", 8)
    waits = desk.requests.propose(repeat_frame(8))
    desk.requests.measured("run", 88)
    desk.requests.approve(waits.id, "Ada")
    assert desk.statuses() == [("rejected", "frame 8 was to be repeated; the run is at frame 88 by now")]
    assert desk.beamline.done == []
