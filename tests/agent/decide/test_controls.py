"""Several controls as one."""

from collections.abc import Collection, Mapping
from typing import Any

from xas_agent.agent.decide import Controls
from xas_agent.agent.types.protocols import Reply, SelectiveControl


class Told:
    """A control that keeps what it was asked for."""

    def __init__(self, *actions: str) -> None:
        self.actions: Collection[str] = actions
        self.asked: list[tuple[str, str, Mapping[str, Any], float]] = []
        self.closed = False

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        self.asked.append((id, action, args, timeout))
        return Reply("acknowledged", action)

    def close(self) -> None:
        self.closed = True


def test_each_action_goes_to_the_control_that_names_it():
    robot, notify, run = Told("load", "heat"), Told("notify"), Told()
    controls = Controls(robot, notify, other=run)
    for n, action in enumerate(("load", "notify", "stop", "heat", "pause")):
        assert controls.request(str(n), action, {"at": n}, 5.0) == Reply("acknowledged", action)
    assert robot.asked == [("0", "load", {"at": 0}, 5.0), ("3", "heat", {"at": 3}, 5.0)]
    assert [action for _, action, _, _ in notify.asked] == ["notify"]
    assert [action for _, action, _, _ in run.asked] == ["stop", "pause"]


def test_an_action_that_no_control_takes_is_rejected():
    assert Controls(Told("load")).request("a", "stop", {}, 5.0) == Reply("rejected", "no control takes 'stop'")


def test_the_first_of_two_takes_the_action():
    first, second = Told("load"), Told("load", "heat")
    controls = Controls(first, second)
    assert set(controls.actions) == {"load", "heat"}
    controls.request("a", "load", {}, 5.0)
    assert (len(first.asked), len(second.asked)) == (1, 0)


def test_closing_closes_all():
    parts = [Told("load"), Told("notify"), Told()]
    Controls(*parts[:2], other=parts[2]).close()
    assert all(part.closed for part in parts)


def test_controls_may_hold_controls():
    robot, run = Told("load"), Told()
    inner = Controls(robot, other=run)
    assert isinstance(inner, SelectiveControl)
    Controls(inner, other=run).request("a", "load", {}, 5.0)
    assert len(robot.asked) == 1
