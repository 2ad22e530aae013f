"""Permissions, the order of statuses, and that the caller never waits for a control."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from deadline import wait_until

from xas_agent.agent.decide.dispatch import ControlSettings, Dispatcher
from xas_agent.agent.types.decision import Decision
from xas_agent.agent.types.protocols import Action, Reply

FREE = ControlSettings(enabled=True, allow=("stop", "pause"), timeout_s=1.0)


class Recorder:
    """A control with set answers that records the statuses of decisions."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, Any], float]] = []
        self.answer: Callable[[], Reply] = lambda: Reply("acknowledged", "stopping")
        self.told: list[Decision] = []

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        self.requests.append((id, action, dict(args), timeout))
        return self.answer()

    def close(self) -> None:
        pass

    @property
    def statuses(self) -> list[tuple[str, str, str]]:
        return [(d.id, d.status, d.status_reason) for d in self.told]


@pytest.fixture
def control() -> Recorder:
    return Recorder()


@pytest.fixture
def controlling(control: Recorder) -> Iterator[Callable[..., Dispatcher]]:
    made: list[Dispatcher] = []

    def make(settings: ControlSettings = FREE, connected: bool = True) -> Dispatcher:
        made.append(Dispatcher(settings, control if connected else None, control.told.append))
        return made[-1]

    yield make
    for each in made:
        each.close()


def decision(id: str = "d1", action: Action = "stop") -> Decision:
    return Decision(id, "half", action, "OS 3.52 e", "run", 1.0, 0.9, (("f", 3.52),), args={"at": 3})


def test_sent_and_acknowledged(controlling, control):
    controls = controlling()
    proposed = decision()
    assert controls.submit(proposed) is proposed
    assert controls.drain(5)
    assert control.statuses == [("d1", "sent", ""), ("d1", "acknowledged", "stopping")]
    assert control.requests == [("d1", "stop", {"at": 3}, 1.0)]
    assert control.told[0].evidence == proposed.evidence


def test_controls_are_disabled_by_default():
    assert not ControlSettings().enabled
    assert ControlSettings().allow == ()


@pytest.mark.parametrize("settings", [ControlSettings(), FREE])
def test_notify_needs_no_control(controlling, control, settings):
    controls = controlling(settings)
    controls.submit(decision(action="notify"))
    assert controls.drain(5)
    assert control.statuses == [("d1", "acknowledged", "logged; the config names no destination")]
    assert control.requests == []


class Telling(Recorder):
    """A control that takes notifications too."""

    actions = ("notify",)


@pytest.mark.parametrize("status", ["acknowledged", "rejected", "expired"])
def test_a_control_that_takes_notifications_is_told_the_decision(status):
    control = Telling()
    control.answer = lambda: Reply(status, "told")
    controls = Dispatcher(ControlSettings(), control, control.told.append)
    controls.submit(decision(action="notify"))
    assert controls.drain(5)
    controls.close()
    assert control.statuses == [("d1", "sent", ""), ("d1", status, "told")]
    ((id, action, message, _),) = control.requests
    assert (id, action) == ("d1", "notify")
    assert message == decision(action="notify").as_message()
    assert (message["rule"], message["run"], message["args"]) == ("half", "run", {"at": 3})


@pytest.mark.parametrize("slow", ["notify", "load"])
def test_only_actions_of_a_kind_wait_for_each_other(slow):
    go, asked = threading.Event(), threading.Event()

    class Slow(Telling):
        def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
            if action == slow:
                asked.set()
                go.wait(30)
            return super().request(id, action, args, timeout)

    control = Slow()
    free = ControlSettings(enabled=True, allow=("stop", "pause", "load", "heat"))
    controls = Dispatcher(free, control, control.told.append)
    controls.submit(decision("slow", slow))
    assert asked.wait(5)
    others: list[Action] = ["stop", "pause", "notify" if slow == "load" else "load"]
    for action in others:
        controls.submit(decision(action, action))
    wait_until(lambda: {request[1] for request in control.requests} == set(others))
    controls.submit(decision("next", "heat" if slow == "load" else "notify"))
    assert not controls.drain(0.05)
    assert len(control.requests) == 3
    go.set()
    assert controls.drain(5)
    assert [request[0] for request in control.requests][3:] == ["slow", "next"]
    controls.close()


@pytest.mark.parametrize("status", ["rejected", "expired"])
def test_other_answers(controlling, control, status):
    control.answer = lambda: Reply(status, "no")
    controls = controlling()
    controls.submit(decision())
    assert controls.drain(5)
    assert control.statuses[-1] == ("d1", status, "no")


def fail() -> Reply:
    raise OSError("no route")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (fail, "the control failed, outcome unknown: OSError: no route"),
        (lambda: None, "the control failed, outcome unknown: TypeError: found None, expected a Reply"),
    ],
)
def test_failed_request_is_expired_and_the_next_is_sent(controlling, control, answer, why):
    control.answer = answer
    controls = controlling()
    controls.submit(decision())
    assert controls.drain(5)
    assert control.statuses[-1] == ("d1", "expired", why)
    control.answer = lambda: Reply("acknowledged")
    controls.submit(decision("d2"))
    assert controls.drain(5)
    assert control.statuses[-1] == ("d2", "acknowledged", "")


def test_no_control(controlling, control):
    controls = controlling(connected=False)
    controls.submit(decision())
    assert controls.drain(5)
    assert control.statuses == [("d1", "rejected", "no control is connected")]


def test_status_callback_that_raises_does_not_end_the_thread(control):
    def fail(decision: Decision) -> None:
        raise RuntimeError("reader broke")

    controls = Dispatcher(FREE, control, fail)
    controls.submit(decision())
    controls.submit(decision("d2"))
    assert controls.drain(5)
    assert [request[0] for request in control.requests] == ["d1", "d2"]
    controls.close()


def test_submit_does_not_wait_and_order_is_kept(controlling, control):
    go = threading.Event()
    control.answer = lambda: Reply("acknowledged") if go.wait(10) else Reply("expired")
    controls = controlling()
    for n in range(5):
        controls.submit(decision(f"d{n}"))
    assert not controls.drain(0.05)
    go.set()
    assert controls.drain(5)
    assert [(i, s) for i, s, _ in control.statuses] == [
        (f"d{n}", status) for n in range(5) for status in ("sent", "acknowledged")
    ]


def test_a_stop_does_not_wait_for_other_requests():
    go, stopped = threading.Event(), threading.Event()

    class Slow(Recorder):
        def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
            stopped.set() if action == "stop" else go.wait(10)
            return super().request(id, action, args, timeout)

    control = Slow()
    controls = Dispatcher(FREE, control, control.told.append)
    for n in range(3):
        controls.submit(decision(f"d{n}", "pause"))
    controls.submit(decision("last"))
    assert stopped.wait(5)
    wait_until(lambda: control.requests)
    go.set()
    assert controls.drain(5)
    assert [request[0] for request in control.requests] == ["last", "d0", "d1", "d2"]
    controls.close()


def test_close_expires_waiting_decisions(controlling, control):
    asked, go = threading.Event(), threading.Event()

    def answer() -> Reply:
        asked.set()
        return Reply("acknowledged" if go.wait(10) else "expired")

    control.answer = answer
    controls = controlling()
    controls.submit(decision("d1"))
    controls.submit(decision("d2"))
    assert asked.wait(5)
    controls.close(timeout=0.01)
    assert control.statuses[-1] == ("d1", "expired", "the agent closed before the answer, outcome unknown")
    assert controls.submit(decision("d3")).status == "expired"
    go.set()
    controls.close(timeout=5)
    assert [(i, s) for i, s, _ in control.statuses] == [("d1", "sent"), ("d1", "expired"), ("d2", "expired")]


def test_many_threads_submit(controlling, control):
    controls = controlling()
    threads = [
        threading.Thread(target=lambda k=k: [controls.submit(decision(f"{k}-{n}")) for n in range(50)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert controls.drain(10)
    assert len({request[0] for request in control.requests}) == 200
    assert len(control.told) == 400


def test_threads_end_with_close(controlling):
    controls = controlling()
    controls.close()
    for lane in controls._lanes.values():
        lane.thread.join(5)
        assert not lane.thread.is_alive()
