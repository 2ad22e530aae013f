"""One agent acts on a queue server at a time, and a dead one blocks nobody. Agents are processes of their own."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from deadline import wait_until
from logs import capture_logs
from queue_server import QueueServer

from xas_agent.adapters.queueserver import QueueServerControl, QueueServerSettings
from xas_agent.adapters.queueserver.lease import FileLease, lease_of

TIMEOUT_S = 20
WANTED = {"plan": {"name": "measure", "args": [["axis"]]}}
AGENT = """
import json, sys
from xas_agent.adapters.queueserver import QueueServerControl, QueueServerSettings
address, lease, session = sys.argv[1:]
control = QueueServerControl(QueueServerSettings(address=address, lease=lease), session)
for line in sys.stdin:
    reply = control.request(*json.loads(line), 20)
    print(json.dumps([reply.status, reply.reason]), flush=True)
control.close()
"""


class Agent:
    """An agent's control in another process."""

    def __init__(self, server: QueueServer, name: str) -> None:
        command = [sys.executable, "-c", AGENT, server.address, str(server.folder / "lease"), name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, id: str, action: str, args: Any = None) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([id, action, args or {}]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> list[str]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def request(self, id: str, action: str, args: Any = None) -> list[str]:
        self.ask(id, action, args)
        return self.answer()

    def end(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture
def start(server: QueueServer) -> Iterator[Callable[[str], Agent]]:
    agents: list[Agent] = []

    def make(name: str) -> Agent:
        agents.append(Agent(server, name))
        return agents[-1]

    yield make
    for agent in agents:
        agent.process.kill()
        agent.process.communicate()
    (server.folder / "lease").unlink(missing_ok=True)


def test_a_second_agent_may_only_stop_until_the_first_ends(api, server, start):
    api.item_add({"item_type": "plan", "name": "hold", "kwargs": {"name": "never"}})
    api.queue_start()
    wait_until(lambda: server.seen("start") and api.status(reload=True)["manager_state"] == "executing_queue")
    first, second = start("first"), start("second")
    assert first.request("1", "pause")[0] == "acknowledged"
    status, reason = second.request("2", "resume")
    assert status == "rejected"
    assert reason.startswith("session first of ")
    assert f"process {first.process.pid}, since " in reason
    assert reason.endswith(f"controls this beamline; end it, or remove {server.folder / 'lease'} if it hangs")
    assert api.status(reload=True)["manager_state"] == "paused"
    assert second.request("3", "stop")[0] == "acknowledged"
    first.end()
    assert second.request("4", "queue_plan", WANTED)[0] == "acknowledged"
    second.end()
    assert not (server.folder / "lease").exists()


def test_a_killed_agent_keeps_neither_another_agent_nor_the_crew_from_acting(api, server, start):
    first, second = start("first"), start("second")
    assert first.request("1", "queue_plan", WANTED)[0] == "acknowledged"
    assert second.request("2", "queue_plan", WANTED)[0] == "rejected"
    api.item_add({"item_type": "plan", "name": "measure", "args": [["axis"]]})  # the lease binds agents only
    first.process.kill()
    first.process.wait()
    api.item_add({"item_type": "plan", "name": "measure", "args": [["axis"]]})
    assert second.request("3", "queue_plan", WANTED)[0] == "acknowledged"
    assert api.status(reload=True)["items_in_queue"] == 4
    assert api.lock_info()["lock_info"]["queue"] is False


def test_a_person_breaks_the_lease_of_an_agent_that_hangs(api, server, start):
    first, second = start("first"), start("second")
    assert first.request("1", "queue_plan", WANTED)[0] == "acknowledged"
    (server.folder / "lease").unlink()
    assert second.request("2", "queue_plan", WANTED)[0] == "acknowledged"
    for id in ("3", "4"):  # the first comes to life again
        status, reason = first.request(id, "queue_plan", WANTED)
        assert (status, "was removed, so another agent may control this beamline" in reason) == ("rejected", True)
    first.end()
    assert second.request("5", "queue_plan", WANTED)[0] == "acknowledged"
    assert start("third").request("6", "queue_plan", WANTED)[0] == "rejected"


def test_of_many_agents_at_once_one_acts(api, server, start):
    agents = [start(str(n)) for n in range(5)]
    for turn in range(3):
        for n, agent in enumerate(agents):
            agent.ask(f"{turn}/{n}", "queue_plan", WANTED)
        answers = [agent.answer()[0] for agent in agents]
        assert sorted(answers) == ["acknowledged", *["rejected"] * 4]
        one = answers.index("acknowledged")
        agents[one].process.kill()
        agents[one].process.wait()
        agents[one] = start(f"{turn} after")
    assert api.status(reload=True)["items_in_queue"] == 3


def test_an_agent_that_may_act_holds_the_lease_from_its_start(tmp_path):
    settings = QueueServerSettings(address=f"ipc://{tmp_path}/nobody", lease=tmp_path / "lease")
    with closing(QueueServerControl(settings, "one", hold=True)):
        with capture_logs() as logs, closing(QueueServerControl(settings, "two", hold=True)):
            pass
        [line] = [line for line in logs if line["event"] == "no control of the beamline"]
        assert line["detail"].startswith("session one of ")
    assert not (tmp_path / "lease").exists()


def test_a_lease_that_changes_hands_is_never_held_twice(tmp_path):
    """Each holder removes the file at its end, while others wait for it."""
    holders, most, failed = [0], [0], []
    counting = threading.Lock()

    def work() -> None:
        for _ in range(200):
            lease = FileLease(tmp_path / "lease")
            if lease.take():
                continue
            with counting:
                holders[0] += 1
                most[0] = max(most[0], holders[0])
            if lease.take():
                failed.append(1)
            with counting:
                holders[0] -= 1
            lease.release()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0], failed) == (1, [])


@pytest.mark.parametrize("path", ["none/lease", "folder"])
def test_a_file_that_cannot_be_locked_lets_nobody_act(tmp_path, path):
    (tmp_path / "folder").mkdir()
    settings = QueueServerSettings(address=f"ipc://{tmp_path}/nobody", lease=tmp_path / path)
    with closing(QueueServerControl(settings)) as control:
        reply = control.request("1", "pause", {}, 0.2)
    assert reply.status == "rejected"
    assert reply.reason.startswith(f"the lease {tmp_path / path} cannot be locked: ")
    assert reply.reason.endswith("; name another (queue_server.lease)")


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "lease").symlink_to(tmp_path / "precious")
    assert "cannot be locked" in FileLease(tmp_path / "lease").take()
    assert (tmp_path / "precious").read_text() == "kept"


def test_all_names_of_a_manager_have_one_file():
    names = {lease_of(f"tcp://{host}:60615") for host in ("localhost", "127.0.0.1", "127.0.1.1")}
    assert names == {Path("/tmp/xas-agent-here-60615.lease")}
    assert lease_of("tcp://192.0.2.7:60615") == Path("/tmp/xas-agent-192.0.2.7-60615.lease")
    assert lease_of("tcp://localhost:60616") not in names
    assert lease_of("ipc:///run/beam/manager") == Path("/tmp/xas-agent-run-beam-manager.lease")
    assert lease_of("tcp://No.Such.Host.invalid:1") == Path("/tmp/xas-agent-no.such.host.invalid-1.lease")
