"""Messages that are lost or repeated between the control and the manager, and a manager that is killed meanwhile."""

import threading
from collections import Counter

import pytest
from deadline import wait_until
from queue_server import client, serving
from unreliable import Unreliable, by_chance

from xas_agent.adapters.queueserver import QueueServerControl

MEASURE = {"name": "measure", "args": [["axis"]]}
WANTED = {"plan": MEASURE}
TIMEOUT_S = 30


def decisions(api):
    return [item["meta"]["xas_agent_decision"] for item in api.queue_get()["items"]]


class Once:
    """The fate of messages: the first request of a method, or its answer, arrives so many times; the others once."""

    def __init__(self, method, times, *, answer=False):
        self.method, self.times, self.answer = method, times, answer
        self.met = threading.Event()
        """Set when that message came by."""
        self._asked = ""

    def __call__(self, message, is_request):
        if is_request:
            self._asked = message["method"]
        if self.met.is_set() or self._asked != self.method or is_request == self.answer:
            return 1
        self.met.set()
        return self.times


@pytest.fixture
def over(server):
    """Make a control whose messages have a fate."""
    networks, controls = [], []

    def make(fate, retry_s=0.2):
        networks.append(Unreliable(server.address, f"{server.address}{len(networks)}", fate))
        settings = server.settings(retry_s=retry_s).model_copy(update={"address": networks[-1].address})
        controls.append(QueueServerControl(settings))
        return controls[-1]

    yield make
    for control in controls:
        control.close()
    for network in networks:
        network.close()


def add_hold(api):
    wait_until(lambda: "hold" in api.plans_allowed(reload=True)["plans_allowed"])  # some time after the environment
    api.item_add({"item_type": "plan", "name": "hold", "args": ["never"]})


def hold(api, server):
    add_hold(api)
    api.queue_start()
    wait_until(lambda: server.seen("start") and api.status(reload=True)["manager_state"] == "executing_queue")


@pytest.mark.parametrize("answer", [False, True])
@pytest.mark.parametrize("times", [0, 2])
@pytest.mark.parametrize("method", ["queue_item_add", "queue_get", "history_get", "status"])
def test_a_plan_is_added_once(api, over, method, times, answer):
    fate = Once(method, times, answer=answer)
    assert over(fate).request("1", "queue_plan", WANTED, TIMEOUT_S).status == "acknowledged"
    assert fate.met.is_set()
    assert decisions(api) == ["1"]


@pytest.mark.parametrize("answer", [False, True])
@pytest.mark.parametrize("times", [0, 2])
def test_the_queue_is_started_once(api, server, over, times, answer):
    fate = Once("queue_start", times, answer=answer)
    assert over(fate).request("1", "queue_plan", {**WANTED, "start": True}, TIMEOUT_S).status == "acknowledged"
    assert fate.met.is_set()
    wait_until(lambda: api.history_get()["items"])
    assert [doc["xas_agent_decision"] for doc in server.seen("start")] == ["1"]


@pytest.mark.parametrize("answer", [False, True])
@pytest.mark.parametrize("times", [0, 2])
def test_an_item_is_removed_once(api, over, times, answer):
    uids = [api.item_add({"item_type": "plan", **MEASURE})["item"]["item_uid"] for _ in range(2)]
    fate = Once("queue_item_remove", times, answer=answer)
    assert over(fate).request("1", "queue_plan", {"remove": uids[0]}, TIMEOUT_S).status == "acknowledged"
    assert fate.met.is_set()
    assert [item["item_uid"] for item in api.queue_get()["items"]] == uids[1:]


@pytest.mark.slow
@pytest.mark.parametrize("answer", [False, True])
@pytest.mark.parametrize("times", [0, 2])
@pytest.mark.parametrize("method", ["re_pause", "re_resume", "re_stop"])
def test_a_plan_pauses_resumes_and_stops_once(api, server, over, method, times, answer):
    hold(api, server)
    fate = Once(method, times, answer=answer)
    control = over(fate)
    for id, action in enumerate(("pause", "resume", "stop")):
        assert control.request(str(id), action, {}, TIMEOUT_S).status == "acknowledged"
    assert fate.met.is_set()
    states = Counter(new for _, new in server.seen("state"))
    assert (states["paused"], states["running"], states["stopping"]) == (2, 2, 1)
    assert [doc["exit_status"] for doc in server.seen("stop")] == ["success"]


def test_a_request_that_is_never_answered_expires(api, over):
    reply = over(lambda message, is_request: 0 if message.get("method") == "queue_item_add" else 1).request(
        "1", "queue_plan", WANTED, 1.0
    )
    assert reply.status == "expired"
    assert reply.reason.startswith("not confirmed within 1 s; when last asked, the manager is idle, ")


def test_many_actions_over_a_bad_network(api, over):
    control = over(by_chance(seed=1), retry_s=0.05)
    ids = [str(number) for number in range(25)]
    for id in ids:
        assert control.request(id, "queue_plan", WANTED, TIMEOUT_S).status == "acknowledged"
    assert decisions(api) == ids


@pytest.mark.slow
@pytest.mark.parametrize("method", ["queue_get", "queue_item_add"])
@pytest.mark.parametrize("answer", [False, True])
def test_the_manager_is_killed_while_a_request_is_out(method, answer):
    """All its processes, before it has the request or after it has carried it out; Redis stays."""
    fate = Once(method, 0, answer=answer)
    with serving() as server:
        with client(server) as api:
            api.environment_open()
            api.wait_for_idle(timeout=60)
            add_hold(api)
            api.queue_start()
            wait_until(lambda: server.seen("start"))
        with Unreliable(server.address, f"{server.address}0", fate) as network:
            settings = server.settings().model_copy(update={"address": network.address})
            control, replies = QueueServerControl(settings), []
            asking = threading.Thread(
                target=lambda: replies.append(control.request("1", "queue_plan", WANTED, 60)), daemon=True
            )
            asking.start()
            assert fate.met.wait(20)
            server.kill()
            server.start_manager()
            asking.join(90)
            control.close()
        with client(server) as api:
            assert replies[0].status == "acknowledged"
            assert replies[0].reason == "the plan is queued; the manager is idle, 1 queued, environment closed"
            assert decisions(api) == ["1"]
            api.environment_open()
            api.wait_for_idle(timeout=60)
            api.queue_start()
            wait_until(lambda: any("xas_agent_decision" in doc for doc in server.seen("start")))
            api.wait_for_idle(timeout=60)
        assert sum("xas_agent_decision" in doc for doc in server.seen("start")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("action", ["pause", "stop", "abort"])
def test_the_watchdog_restarts_the_manager_while_a_request_is_out(action, api, server):
    """The manager's process stops answering and is started again; the plan goes on in its own process."""
    hold(api, server)
    control, replies = QueueServerControl(server.settings()), []
    with pytest.raises(api.RequestTimeoutError):
        api.send_request(method="manager_kill")
    asking = threading.Thread(target=lambda: replies.append(control.request("1", action, {}, 60)), daemon=True)
    asking.start()
    asking.join(90)
    control.close()
    assert replies[0].status == "acknowledged"
    states = Counter(new for _, new in server.seen("state"))
    assert states["paused"] == 1
    if action != "pause":
        assert len(server.seen("stop")) == 1
