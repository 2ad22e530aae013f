"""A robot and its control in one process: acceptance, outcome, repetition, silence, restart."""

import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from deadline import wait_until
from logs import capture_logs
from lossy import lossy_proxy

from xas_agent.adapters.robot import RobotControl, RobotServer, RobotSettings
from xas_agent.adapters.robot import server as server_module
from xas_agent.adapters.robot.schema import RobotAnswer, RobotStatus
from xas_agent.adapters.zmq import ZMQControl
from xas_agent.agent.types.errors import InputError
from xas_agent.agent.types.protocols import Reply
from xas_agent.sim_beamline.sample_changer import SampleChanger

DOSE = {"reagent": "LiPF6", "amount": 5.0, "unit": "uL"}
HOT = {"target_c": 300.0, "ramp_c_per_min": 1e6}
SLOW = {"target_c": 900.0, "ramp_c_per_min": 0.1}


class Watched(SampleChanger):
    """A sample changer that tells what was begun and when it was made safe."""

    def __init__(self) -> None:
        super().__init__(["A1", "A2", "A3"], 0.0)
        self.begun: list[tuple[str, Mapping[str, Any]]] = []
        self.at_work, self.safe = threading.Event(), threading.Event()

    def do(self, action: str, args: Mapping[str, Any], halted: threading.Event) -> None:
        self.begun.append((action, args))
        self.at_work.set()
        super().do(action, args, halted)

    def make_safe(self) -> None:
        super().make_safe()
        self.safe.set()


def settings(address: str, **keys: Any) -> RobotSettings:
    return RobotSettings(address=address, **{"retry_s": 0.2, **keys})


@contextmanager
def robot(tmp_path: Path, safe_after_s: float = 60.0, memory: Path | None = None) -> Iterator[tuple[Watched, str]]:
    device, address = Watched(), f"ipc://{tmp_path}/robot"
    with closing(RobotServer(address, device, safe_after_s, memory)):
        assert device.safe.is_set()
        device.safe.clear()
        yield device, address


def status_of(address: str, **args: Any) -> RobotStatus:
    with closing(ZMQControl(address)) as asker:
        reply = asker.request(uuid.uuid4().hex, "status", args, 5)
    assert reply.status == "acknowledged"
    return RobotStatus.model_validate(reply.data)


def send(address: str, id: str, action: str, args: Mapping[str, Any]) -> Reply:
    """Send an action and return the answer that accepts or rejects it."""
    with closing(ZMQControl(address)) as asker:
        return asker.request(id, action, args, 5)


def test_each_action_is_acknowledged_when_it_is_done(tmp_path):
    with robot(tmp_path) as (device, address), closing(RobotControl(settings(address))) as control:
        for n, (action, args) in enumerate(
            [("dose", DOSE), ("heat", HOT), ("unload", {}), ("load", {"sample": "A3"}), ("unload", {})]
        ):
            assert control.request(str(n), action, args, 5) == Reply("acknowledged", "done")
        assert [action for action, _ in device.begun] == ["dose", "heat", "unload", "load", "unload"]
        assert device.begun[0][1] == DOSE
        status = status_of(address, of="3")
    assert (status.state, status.sample, status.heater_on) == ("ready", None, False)
    assert status.of is not None
    assert (status.of.action, status.of.args, status.of.state) == ("load", {"sample": "A3"}, "done")


def test_the_heater_holds_its_temperature_until_the_sample_leaves(tmp_path):
    with robot(tmp_path) as (_, address), closing(RobotControl(settings(address))) as control:
        assert control.request("a", "heat", HOT, 5).status == "acknowledged"
        assert (status := status_of(address)).heater_on
        assert status.temperature_c == 300
        assert control.request("b", "heat", {**HOT, "target_c": 20}, 5).status == "acknowledged"
        assert not status_of(address).heater_on


@pytest.mark.parametrize(
    ("action", "args", "why"),
    [
        ("load", {"sample": "A2"}, "A1 is in the beam; unload it first"),
        ("load", {}, "load.args.sample: Field required"),
        ("dose", {**DOSE, "unit": "spoon"}, "dose.args.unit: Input should be 'uL'"),
        ("dose", {**DOSE, "amount": "5"}, "dose.args.amount: Input should be a valid number"),
        ("dose", {**DOSE, "amount": 0}, "dose.args.amount: Input should be greater than 0"),
        ("heat", {**HOT, "target_c": float("nan")}, "heat.args.target_c: Input should be"),
        ("heat", {**HOT, "ramp": 3}, "heat.args.ramp: Extra inputs are not permitted"),
        ("heat", {**HOT, "target_c": 2000}, "found 2000 °C; the heater reaches 1000 °C"),
        ("dance", {}, "Input tag 'dance' found"),
    ],
)
def test_what_a_robot_cannot_do_is_rejected_and_not_begun(tmp_path, action, args, why):
    with robot(tmp_path) as (device, address), closing(RobotControl(settings(address))) as control:
        reply = control.request("a", action, args, 5)
    assert reply.status == "rejected"
    assert why in reply.reason
    assert device.begun == []


def test_a_robot_does_one_action_at_a_time(tmp_path):
    with robot(tmp_path) as (device, address):
        assert send(address, "a", "heat", SLOW) == Reply("acknowledged", "accepted")
        assert send(address, "b", "dose", DOSE) == Reply("rejected", "busy: heat")
        assert status_of(address).state == "busy"
    assert [action for action, _ in device.begun] == ["heat"]


def test_an_id_stands_for_one_action(tmp_path):
    with robot(tmp_path) as (device, address), closing(RobotControl(settings(address))) as control:
        for _ in range(3):
            assert control.request("a", "dose", DOSE, 5) == Reply("acknowledged", "done")
        assert control.request("a", "dose", {**DOSE, "amount": 6.0}, 5).status == "rejected"
    assert len(device.begun) == 1


def test_an_action_that_fails_says_why(tmp_path):
    class Broken(Watched):
        def do(self, action: str, args: Mapping[str, Any], halted: threading.Event) -> None:
            raise OSError("the gripper is open")

    with (
        closing(RobotServer(f"ipc://{tmp_path}/robot", Broken())) as server,
        closing(RobotControl(settings(server.address))) as control,
    ):
        assert control.request("a", "dose", DOSE, 5) == Reply("expired", "failed: the gripper is open")


def test_no_action_is_lost_or_doubled_by_a_lossy_connection(tmp_path):
    with (
        robot(tmp_path) as (device, address),
        lossy_proxy(address, tmp_path) as (lossy, losses),
        closing(RobotControl(settings(lossy, retry_s=0.05))) as control,
    ):
        for n in range(60):
            args = {**DOSE, "amount": float(n + 1)}
            assert control.request(str(n), "dose", args, 60) == Reply("acknowledged", "done")
    assert [args["amount"] for _, args in device.begun] == list(range(1, 61))
    assert losses.counts["lost"] > 10
    assert losses.counts["repeated"] > 10


def test_a_silent_agent_brings_the_robot_into_its_safe_state(tmp_path):
    with robot(tmp_path, safe_after_s=0.5) as (device, address):
        control = RobotControl(settings(address))
        assert control.request("a", "heat", HOT, 5).status == "acknowledged"
        assert not device.safe.is_set()
        control.close()
        assert device.safe.wait(30)
        wait_until(lambda: status_of(address).state == "safe")
        status = status_of(address)
        assert (status.sample, status.heater_on) == ("A1", False)
        assert "no heartbeat for 0.5" in status.reason
        # The next action ends the safe state.
        with closing(RobotControl(settings(address))) as control:
            assert control.request("b", "dose", DOSE, 5).status == "acknowledged"
            assert status_of(address).state == "ready"


def test_a_display_is_no_heartbeat(tmp_path):
    with robot(tmp_path, safe_after_s=0.5) as (_, address):
        send(address, "a", "heat", SLOW)
        wait_until(lambda: status_of(address, of="a").state == "safe")
        status = status_of(address, of="a")
    assert status.of is not None
    assert status.of.state == "failed"
    assert status.of.reason.startswith("safe state: no heartbeat for 0.")


def test_a_heartbeat_keeps_a_robot_at_work(tmp_path):
    with robot(tmp_path, safe_after_s=3.0) as (device, address), closing(RobotControl(settings(address))) as control:
        replies: list[Reply] = []
        asking = threading.Thread(target=lambda: replies.append(control.request("a", "heat", SLOW, 5)))
        asking.start()
        assert device.at_work.wait(30)
        assert not device.safe.wait(4.0)
        control.close()
        asking.join(30)
    assert replies == [Reply("expired", "the agent closed before it was done; the robot goes into its safe state")]


def test_a_lost_connection_expires_the_action_in_progress(tmp_path):
    with robot(tmp_path, safe_after_s=1.0) as (device, address):
        replies: list[Reply] = []
        with lossy_proxy(address, tmp_path, share=0) as (lossy, _):
            control = RobotControl(settings(lossy))
            assert control.request("0", "dose", DOSE, 5).status == "acknowledged"  # it has read the robot's time
            device.at_work.clear()
            asking = threading.Thread(target=lambda: replies.append(control.request("a", "heat", SLOW, 5)))
            asking.start()
            assert device.at_work.wait(30)
        assert device.safe.wait(30)
        asking.join(30)
        control.close()
    assert replies[0].status == "expired"
    assert "connection lost while it was in progress" in replies[0].reason
    assert "safe state after 1 s" in replies[0].reason


def test_an_action_that_takes_too_long_expires(tmp_path):
    limited = {"action_timeout_s": 0.2}
    with robot(tmp_path) as (_, address), closing(RobotControl(settings(address, **limited))) as control:
        assert control.request("a", "heat", SLOW, 5) == Reply("expired", "not done within 0.2 s")


def test_nobody_there_expires_and_is_logged(tmp_path):
    address = f"ipc://{tmp_path}/robot"
    with capture_logs() as lines, closing(RobotControl(settings(address))) as control:
        reply = control.request("a", "unload", {}, 0.3)
        wait_until(lambda: any(line["event"] == "the robot does not answer" for line in lines))
        with robot(tmp_path):
            wait_until(lambda: any(line["event"] == "the robot answers again" for line in lines))
    assert reply == Reply("expired", f"{address} did not answer within 0.3 s")


def test_a_restarted_robot_does_nothing_again(tmp_path):
    memory = tmp_path / "memory.jsonl"
    with robot(tmp_path, memory=memory) as (device, address):
        assert send(address, "a", "dose", DOSE) == Reply("acknowledged", "accepted")
        wait_until(lambda: (of := status_of(address, of="a").of) is not None and of.state == "done")
        assert send(address, "b", "heat", SLOW).status == "acknowledged"
        assert device.at_work.wait(30)
        interrupted = memory.read_bytes()  # as a power cut leaves it, in the middle of a line
    memory.write_bytes(interrupted + b'{"time": 1.0, "id": "c"')
    with robot(tmp_path, memory=memory) as (device, address):
        assert send(address, "a", "dose", DOSE) == Reply("acknowledged", "accepted before; it is done")
        assert send(address, "b", "heat", SLOW) == Reply("acknowledged", "accepted before; it is failed")
        of = status_of(address, of="b").of
        assert of is not None
        assert of.reason == "the robot restarted meanwhile"
        assert device.begun == []
    lines = [json.loads(line) for line in memory.read_text().splitlines()]
    assert [(line["id"], line["state"]) for line in lines] == [
        ("a", "running"),
        ("a", "done"),
        ("b", "running"),
        ("b", "failed"),
    ]


def test_a_robot_that_lost_its_memory_expires_the_action(tmp_path):
    replies: list[Reply] = []
    with robot(tmp_path) as (device, address):
        control = RobotControl(settings(address))
        asking = threading.Thread(target=lambda: replies.append(control.request("a", "heat", SLOW, 5)))
        asking.start()
        assert device.at_work.wait(30)
        wait_until(lambda: status_of(address).state == "busy")
    with robot(tmp_path):
        asking.join(30)
    control.close()
    assert replies[0].status == "expired"
    assert "knows nothing of it" in replies[0].reason or "the server of the robot was closed" in replies[0].reason


def begin(address: str, control: RobotControl, device: Watched) -> tuple[threading.Thread, list[Reply]]:
    """Let a robot heat for hours; return the thread that asks for it, and what it is answered."""
    replies: list[Reply] = []
    asking = threading.Thread(target=lambda: replies.append(control.request("a", "heat", SLOW, 5)))
    asking.start()
    assert device.at_work.wait(30)
    return asking, replies


def test_an_emergency_stop_overtakes_the_action_in_progress(tmp_path):
    with robot(tmp_path) as (device, address), closing(RobotControl(settings(address))) as control:
        asking, replies = begin(address, control, device)
        assert control.request("stop", "halt", {"reason": "smoke"}, 5) == Reply("acknowledged", "heat was ended")
        asking.join(30)
        assert replies == [Reply("expired", "halted: smoke")]
        status = status_of(address, of="a")
        assert (status.state, status.reason, status.heater_on) == ("halted", "smoke", False)
        assert status.of is not None
        assert (status.of.state, status.of.reason) == ("halted", "smoke")
        # Neither the same action, nor another one, nor one after the heartbeats of another agent.
        assert control.request("a", "heat", SLOW, 5) == Reply("expired", "halted: smoke")
        for n in range(2):
            refused = control.request(f"b{n}", "dose", DOSE, 5)
            assert refused == Reply("rejected", "halted until it is released: smoke")
        assert control.request("again", "halt", {}, 5) == Reply("acknowledged", "no action was in progress")
        assert control.request("on", "release", {}, 5).status == "acknowledged"
        assert status_of(address).state == "safe"
        assert control.request("c", "dose", DOSE, 5) == Reply("acknowledged", "done")
    assert [action for action, _ in device.begun] == ["heat", "dose"]


def test_an_emergency_stop_outlives_a_restart_of_the_robot(tmp_path):
    memory = tmp_path / "memory.jsonl"
    with robot(tmp_path, memory=memory) as (device, address):
        send(address, "a", "heat", SLOW)
        assert device.at_work.wait(30)
        assert send(address, "stop", "halt", {"reason": "smoke"}).status == "acknowledged"
    with robot(tmp_path, memory=memory) as (device, address):
        status = status_of(address, of="a")
        assert (status.state, status.reason) == ("halted", "smoke")
        assert status.of is not None
        assert status.of.state == "halted"
        assert send(address, "b", "dose", DOSE).status == "rejected"
        assert send(address, "on", "release", {}).status == "acknowledged"
    with robot(tmp_path, memory=memory) as (device, address):
        assert send(address, "b2", "dose", DOSE).status == "acknowledged"


def test_a_device_that_does_not_end_its_action_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "_HALT_TIMEOUT_S", 0.05)
    ending = threading.Event()

    class Deaf(Watched):
        def do(self, action: str, args: Mapping[str, Any], halted: threading.Event) -> None:
            self.at_work.set()
            ending.wait(30)

    device = Deaf()
    with closing(RobotServer(f"ipc://{tmp_path}/robot", device)) as server:
        address = server.address
        send(address, "a", "dose", DOSE)
        assert device.at_work.wait(30)
        told = send(address, "stop", "halt", {})
        assert told == Reply("expired", "in its safe state, but dose has not ended")
        assert send(address, "on", "release", {}) == Reply("rejected", "dose has not ended")
        ending.set()
        wait_until(lambda: (of := status_of(address, of="a").of) is not None and of.state == "done")
        assert send(address, "on2", "release", {}).status == "acknowledged"


def test_a_device_that_cannot_be_made_safe_is_told(tmp_path):
    class Stuck(Watched):
        works = True

        def make_safe(self) -> None:
            if not self.works:
                raise OSError("no route to the heater")
            super().make_safe()

    device = Stuck()
    with capture_logs(), closing(RobotServer(f"ipc://{tmp_path}/robot", device, 0.2)) as server:
        send(server.address, "a", "heat", HOT)
        wait_until(lambda: (of := status_of(server.address, of="a").of) is not None and of.state == "done")
        device.works = False
        told = send(server.address, "stop", "halt", {})
        assert (told.status, "did not go into its safe state" in told.reason) == ("expired", True)
        assert status_of(server.address).state == "halted"
        device.works = True  # the robot goes on trying
        wait_until(lambda: not status_of(server.address).heater_on)


def test_a_device_that_does_not_report_becomes_safe(tmp_path):
    class Mute(Watched):
        def report(self) -> dict[str, Any]:
            raise OSError("no route to the device")

    device = Mute()
    with (
        closing(RobotServer(f"ipc://{tmp_path}/robot", device, 0.5)) as server,
        closing(RobotControl(settings(server.address))),
    ):
        device.safe.clear()
        assert send(server.address, "a", "heat", SLOW).status == "acknowledged"
        assert device.safe.wait(30)


def test_a_file_that_is_no_memory_is_a_user_error(tmp_path):
    (memory := tmp_path / "memory.jsonl").write_text("yes\n")
    with pytest.raises(InputError, match="not a robot's memory"):
        RobotServer(f"ipc://{tmp_path}/robot", Watched(), memory=memory)


def test_a_device_that_does_not_become_safe_is_told_again(tmp_path):
    class Stuck(Watched):
        calls = 0

        def make_safe(self) -> None:
            self.calls += 1
            if self.calls == 1:
                raise OSError("no route to the heater")
            super().make_safe()

    device = Stuck()
    with capture_logs() as lines, closing(RobotServer(f"ipc://{tmp_path}/robot", device, 0.2)):
        assert device.safe.wait(30)
    assert any(line["event"] == "the robot did not go into its safe state" for line in lines)


def test_an_answer_fits_the_schema(tmp_path):
    with robot(tmp_path) as (_, address):
        for action, args in (("status", {"of": "a"}), ("dose", DOSE), ("load", {})):
            reply = send(address, "a", action, args)
            answer = {"id": "a", "status": reply.status, "reason": reply.reason, "data": reply.data or None}
            assert RobotAnswer.model_validate_json(json.dumps(answer)).status == reply.status
