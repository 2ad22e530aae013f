"""One agent controls a beamline at a time, and its death is noticed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from deadline import wait_until

from xas_agent.adapters.zmq import ControlEndpoint, ControlServer, ZMQControl
from xas_agent.agent.types import Reply

AGENT = """
import sys, threading
from xas_agent.adapters.zmq import ControlEndpoint, ZMQControl
control = ZMQControl(ControlEndpoint(address=sys.argv[1], heartbeat_s=0.1))
print(control.request("a", "notify", {}, 10).status, flush=True)
threading.Event().wait()
"""


class Beamline:
    """A beamline that remembers what it did."""

    def __init__(self, address: str, lease_s: float, safe_action: str | None = None) -> None:
        self.done: list[str] = []
        self.server = ControlServer(address, self.obey, lease_s=lease_s, safe_action=safe_action)

    def obey(self, action: str, args: object) -> Reply:
        self.done.append(action)
        return Reply("acknowledged")

    def close(self) -> None:
        self.server.close()


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/control"


@pytest.fixture
def lasting(address: str) -> Iterator[Beamline]:
    with closing(Beamline(address, lease_s=60)) as beamline:
        yield beamline


def test_a_second_agent_is_refused_until_the_first_gives_the_lease_back(lasting: Beamline, address: str):
    endpoint = ControlEndpoint(address=address, heartbeat_s=30)
    with closing(ZMQControl(endpoint)) as first, closing(ZMQControl(address)) as second:
        assert first.request("a", "pause", {}, 10).status == "acknowledged"
        refused = second.request("b", "pause", {}, 10)
        assert refused.status == "rejected"
        assert "controls this beamline for 60 s more" in refused.reason
        first.close()
        assert second.request("c", "resume", {}, 10).status == "acknowledged"
    assert lasting.done == ["pause", "resume"]


def test_an_agent_without_heartbeats_gives_the_lease_back_when_it_ends(lasting: Beamline, address: str):
    with closing(ZMQControl(address)) as first:
        assert first.request("a", "pause", {}, 10) == Reply("acknowledged")
    assert ZMQControl(address).request("b", "resume", {}, 10).status == "acknowledged"


def test_any_agent_may_stop(lasting: Beamline, address: str):
    assert ZMQControl(address).request("a", "pause", {}, 10).status == "acknowledged"
    assert ZMQControl(address).request("b", "stop", {}, 10).status == "acknowledged"


def test_an_agent_without_heartbeats_is_not_taken_for_dead(address: str):
    with closing(Beamline(address, lease_s=0.2, safe_action="pause")) as beamline:
        assert ZMQControl(address).request("a", "notify", {}, 10).status == "acknowledged"
        wait_until(lambda: beamline.server._lease is not None and beamline.server._lease._holder is None)
        assert beamline.done == ["notify"]


def test_an_agent_that_only_lives_keeps_the_beamline(lasting: Beamline, address: str):
    endpoint = ControlEndpoint(address=address, heartbeat_s=0.05)
    with closing(ZMQControl(endpoint)), closing(ZMQControl(address)) as other:
        wait_until(lambda: lasting.server._lease is not None and lasting.server._lease._holder is not None)
        assert other.request("a", "pause", {}, 10).status == "rejected"


def test_requests_without_a_name_are_one_agent(lasting: Beamline, address: str):
    control = ZMQControl(address)
    control._agent = ""
    assert control.request("a", "pause", {}, 10).status == "acknowledged"
    assert control.request("b", "resume", {}, 10).status == "acknowledged"


def test_a_session_that_goes_on_keeps_its_lease(lasting: Beamline, address: str):
    assert ZMQControl(address, agent="/data/session").request("a", "pause", {}, 10).status == "acknowledged"
    assert ZMQControl(address, agent="/data/session").request("b", "resume", {}, 10).status == "acknowledged"
    assert ZMQControl(address, agent="/data/other").request("c", "pause", {}, 10).status == "rejected"


def test_without_a_lease_any_agent_may_act(address: str):
    with closing(ControlServer(address, lambda action, args: Reply("acknowledged"), lease_s=None)):
        for id in "abc":
            assert ZMQControl(address).request(id, "pause", {}, 10).status == "acknowledged"


def test_another_agent_takes_over_after_the_lease(address: str):
    with closing(Beamline(address, lease_s=0.2)) as beamline:
        assert ZMQControl(address).request("a", "pause", {}, 10).status == "acknowledged"
        other = ZMQControl(address)
        wait_until(lambda: other.request(os.urandom(8).hex(), "resume", {}, 10).status == "acknowledged")
        assert beamline.done == ["pause", "resume"]


def test_the_beamline_is_made_safe_when_its_agent_is_killed(address: str):
    with closing(Beamline(address, lease_s=2.0, safe_action="pause")) as beamline:
        agent = subprocess.Popen([sys.executable, "-c", AGENT, address], stdout=subprocess.PIPE, text=True)
        assert agent.stdout is not None
        assert agent.stdout.readline() == "acknowledged\n"
        assert beamline.done == ["notify"]
        wait_until(lambda: beamline.server._lease is not None and beamline.server._lease._lives)
        agent.send_signal(signal.SIGKILL)
        wait_until(lambda: beamline.done == ["notify", "pause"])
        agent.wait()
        agent.stdout.close()


def test_an_agent_that_ends_leaves_the_beamline_as_it_is(address: str):
    with closing(Beamline(address, lease_s=0.3, safe_action="pause")) as beamline:
        with closing(ZMQControl(ControlEndpoint(address=address, heartbeat_s=0.05))) as agent:
            assert agent.request("a", "notify", {}, 10).status == "acknowledged"
        other = ZMQControl(address)
        assert other.request("b", "stop", {}, 10).status == "acknowledged"
        assert beamline.done == ["notify", "stop"]
