"""Each action on a real RE Manager, and what it refuses."""

import threading

import pytest
from deadline import wait_until
from queue_server import client, serving

from xas_agent.adapters.queueserver import QueueServerControl, QueueServerSettings
from xas_agent.agent.types import Reply

MEASURE = {"name": "measure", "args": [["axis"]]}
TIMEOUT_S = 20


def hold(api, server, name="never", **kwargs):
    """Run a plan, as a user does, that goes on until it is released."""
    api.item_add({"item_type": "plan", "name": "hold", "kwargs": {"name": name, **kwargs}})
    api.queue_start()
    wait_until(lambda: server.seen("start") and api.status()["manager_state"] == "executing_queue")


def decisions(api):
    return [item.get("meta", {}).get("xas_agent_decision") for item in api.queue_get()["items"]]


def last(api):
    return api.history_get()["items"][-1]["result"]["exit_status"]


@pytest.mark.parametrize("args", [{}, {"option": "immediate"}])
def test_pause_is_acknowledged_when_the_plan_rests_and_resume_when_it_runs(api, server, control, args):
    hold(api, server)
    reply = control.request("1", "pause", args, TIMEOUT_S)
    assert reply == Reply("acknowledged", "paused; the manager is paused, 0 queued, environment open")
    assert api.status(reload=True)["manager_state"] == "paused"
    reply = control.request("2", "resume", {}, TIMEOUT_S)
    assert reply == Reply("acknowledged", "resumed; the manager is executing_queue, 0 queued, environment open")
    wait_until(lambda: ["paused", "running"] in server.seen("state"))


def test_what_is_so_already_is_not_done_again(api, server, control):
    hold(api, server)
    assert control.request("1", "resume", {}, TIMEOUT_S).reason.startswith("the plan is not paused; ")
    assert control.request("2", "pause", {}, TIMEOUT_S).reason.startswith("paused; ")
    assert control.request("3", "pause", {}, TIMEOUT_S).reason.startswith("paused; ")
    assert [new for _, new in server.seen("state")].count("paused") == 1


def test_an_id_that_was_answered_gets_the_same_answer_again(api, server, control):
    hold(api, server)
    paused = control.request("1", "pause", {}, TIMEOUT_S)
    control.request("2", "resume", {}, TIMEOUT_S)
    assert control.request("1", "pause", {}, TIMEOUT_S) == paused
    assert api.status(reload=True)["manager_state"] == "executing_queue"


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize(("action", "status"), [("stop", "stopped"), ("abort", "aborted")])
def test_stop_and_abort_are_acknowledged_when_the_plan_has_ended(api, server, control, action, status, paused):
    hold(api, server)
    api.item_add({"item_type": "plan", **MEASURE})
    if paused:
        assert control.request("0", "pause", {}, TIMEOUT_S).status == "acknowledged"
    reply = control.request("1", action, {}, TIMEOUT_S)
    assert reply.status == "acknowledged"
    assert reply.reason.startswith("the plan has ended; the manager is idle, ")
    assert last(api) == status
    assert [doc["exit_status"] for doc in server.seen("stop")] == ["success" if action == "stop" else "abort"]
    names = [item["name"] for item in api.queue_get()["items"]]
    assert names == (["measure"] if action == "stop" else ["hold", "measure"])


def test_stop_waits_for_no_other_request(api, server, control):
    """The pause waits for a checkpoint that does not come."""
    hold(api, server, checkpoints=False)
    replies = []
    pausing = threading.Thread(target=lambda: replies.append(control.request("1", "pause", {}, TIMEOUT_S)))
    pausing.start()
    wait_until(lambda: api.status(reload=True)["pause_pending"])
    assert control.request("2", "stop", {}, TIMEOUT_S).status == "acknowledged"
    pausing.join()
    assert replies[0].status == "expired"
    assert replies[0].reason.startswith("the plan ended before it paused; ")


def test_a_pause_that_does_not_come_in_time_expires_with_the_state(api, server, control):
    hold(api, server, checkpoints=False)
    reply = control.request("1", "pause", {}, 1.0)
    state = "the manager is executing_queue, 0 queued, environment open"
    assert reply == Reply("expired", f"not confirmed within 1 s; when last asked, {state}")


@pytest.mark.parametrize("action", ["pause", "resume", "stop", "abort"])
def test_without_a_plan_there_is_nothing_to_act_on(api, control, action):
    reply = control.request("1", action, {}, TIMEOUT_S)
    assert reply == Reply("rejected", "no plan is running; the manager is idle, 0 queued, environment open")


def test_plans_are_added_and_inserted_where_they_should_be(api, control):
    for id, position in (("a", "back"), ("b", "back"), ("c", "front"), ("d", 1), ("e", -2)):
        reply = control.request(id, "queue_plan", {"plan": MEASURE, "position": position}, TIMEOUT_S)
        assert reply.status == "acknowledged"
        assert reply.reason.startswith("the plan is queued; the manager is idle, ")
    assert decisions(api) == ["c", "d", "a", "e", "b"]
    item = api.queue_get()["items"][0]
    assert (item["user"], item["user_group"]) == ("xas-agent", "primary")


def test_a_plan_runs_once_though_its_decision_comes_again(api, server, make_control):
    """In the queue, while it runs, and in the history; each time from an agent that was started again."""
    hold(api, server, "first")
    wanted = {"plan": {"name": "hold", "kwargs": {"name": "second"}, "meta": {"sample": "S1"}}, "start": True}
    for where, go_on in (("is queued", "first"), ("is running", "second"), ("has run", None)):
        reply = make_control(server).request("1", "queue_plan", wanted, TIMEOUT_S)
        assert reply.status == "acknowledged"
        assert reply.reason.startswith(f"the plan {where}; ")
        if go_on is not None:
            done = len(api.history_get()["items"])
            server.release(go_on)
            wait_until(lambda done=done: len(api.history_get()["items"]) > done)
            wait_until(lambda: api.status(reload=True)["manager_state"] == "idle" or api.queue_get()["running_item"])
    assert decisions(api) == []
    assert [doc.get("sample") for doc in server.seen("start")] == [None, "S1"]
    assert server.seen("start")[1]["xas_agent_decision"] == "1"


def test_an_aborted_plan_has_run(api, server, make_control):
    wanted = {"plan": {"name": "hold", "args": ["never"]}, "start": True}
    assert make_control(server).request("1", "queue_plan", wanted, TIMEOUT_S).status == "acknowledged"
    assert make_control(server).request("2", "abort", {}, TIMEOUT_S).status == "acknowledged"
    reply = make_control(server).request("1", "queue_plan", wanted, TIMEOUT_S)
    assert reply.reason == "the plan has run; the manager is idle, 1 queued, environment open"


def test_the_queue_is_started(api, server, control):
    reply = control.request("1", "queue_plan", {"plan": MEASURE, "start": True}, TIMEOUT_S)
    assert reply.status == "acknowledged"
    wait_until(lambda: len(api.history_get()["items"]) == 1)
    assert [doc["xas_agent_decision"] for doc in server.seen("start")] == ["1"]


def test_a_paused_queue_is_not_started(api, server, control):
    hold(api, server)
    control.request("1", "pause", {}, TIMEOUT_S)
    reply = control.request("2", "queue_plan", {"plan": MEASURE, "start": True}, TIMEOUT_S)
    assert reply.status == "rejected"
    assert reply.reason.startswith("the queue is paused: resume it; the manager is paused, ")
    assert decisions(api) == []


def test_an_item_is_removed_by_its_uid(api, control):
    uid = api.item_add({"item_type": "plan", **MEASURE})["item"]["item_uid"]
    reply = control.request("1", "queue_plan", {"remove": uid}, TIMEOUT_S)
    assert reply == Reply("acknowledged", "removed; the manager is idle, 0 queued, environment open")
    reply = control.request("2", "queue_plan", {"remove": uid}, TIMEOUT_S)
    assert reply.status == "rejected"
    assert reply.reason.startswith(f"the queue has no item {uid}; ")


def test_a_running_item_is_not_removed(api, server, control):
    hold(api, server)
    uid = api.status(reload=True)["running_item_uid"]
    reply = control.request("1", "queue_plan", {"remove": uid}, TIMEOUT_S)
    assert reply.status == "rejected"
    assert reply.reason.startswith(f"the item {uid} is running; ")


@pytest.mark.parametrize(
    ("action", "args", "reason"),
    [
        ("queue_plan", {"plan": {"name": "nothing"}}, "Plan 'nothing' is not in the list of allowed plans"),
        ("queue_plan", {"plan": {"name": "measure"}}, "Plan validation failed"),
        ("queue_plan", {"plan": {"name": "measure", "kw": {}}}, "plan.kw: Extra inputs are not permitted"),
        ("queue_plan", {"plan": {"name": "measure", "args": [object()]}}, "not JSON serializable"),
        ("queue_plan", {}, "expected either plan or remove"),
        ("queue_plan", {"remove": "u", "start": True}, "position and start have no effect beside remove"),
        ("queue_plan", {"plan": MEASURE, "position": "middle"}, "position"),
        ("pause", {"option": "soon"}, "option: Input should be 'deferred' or 'immediate'"),
        ("halt", {}, "a queue server cannot 'halt'"),
    ],
)
def test_what_is_refused(api, control, action, args, reason):
    reply = control.request("1", action, args, TIMEOUT_S)
    assert reply.status == "rejected", reply
    assert reason in reply.reason
    assert "\n" not in reply.reason
    assert api.queue_get()["items"] == []


def test_the_user_group_says_which_plans_are_allowed(api, server, make_control):
    control = make_control(server, user_group="agent", user="night shift")
    assert control.request("1", "queue_plan", {"plan": MEASURE}, TIMEOUT_S).status == "acknowledged"
    reply = control.request("2", "queue_plan", {"plan": {"name": "hold", "args": ["x"]}}, TIMEOUT_S)
    assert reply.status == "rejected"
    assert "Plan 'hold' is not in the list of allowed plans" in reply.reason


def test_a_lock_of_the_user_is_respected(api, server, control):
    hold(api, server)
    api.lock("key", environment=True, queue=True, note="sample change")
    try:
        for id, action, args in (("1", "pause", {}), ("2", "queue_plan", {"plan": MEASURE})):
            reply = control.request(id, action, args, TIMEOUT_S)
            assert reply.status == "rejected"
            assert "sample change" in reply.reason
    finally:
        api.unlock("key")
    assert [new for _, new in server.seen("state")].count("paused") == 0


def test_after_close_it_rejects_and_what_waits_expires(api, server, control):
    hold(api, server, checkpoints=False)
    replies = []
    waiting = threading.Thread(target=lambda: replies.append(control.request("1", "pause", {}, TIMEOUT_S)))
    waiting.start()
    wait_until(lambda: api.status(reload=True)["pause_pending"])
    control.close()
    waiting.join()
    assert replies == [Reply("expired", "the control was closed")]
    assert control.request("2", "stop", {}, TIMEOUT_S) == Reply("rejected", "the control is closed")


def test_nobody_answers(tmp_path, make_control):
    control = QueueServerControl(QueueServerSettings(address=f"ipc://{tmp_path}/nobody"))
    reply = control.request("1", "stop", {}, 0.3)
    assert reply == Reply("expired", f"ipc://{tmp_path}/nobody did not answer within 0.3 s")


def test_an_encrypted_manager_with_a_closed_environment():
    from bluesky_queueserver import generate_zmq_keys

    public, private = generate_zmq_keys()
    with serving(private) as server, client(server, public) as api:
        control = QueueServerControl(server.settings(public_key=public))
        for action, args in (("stop", {}), ("queue_plan", {"plan": MEASURE, "start": True})):
            reply = control.request(action, action, args, TIMEOUT_S)
            assert reply.status == "rejected"
            assert reply.reason.startswith("the environment is closed: open it in the queue server; ")
        assert api.queue_get()["items"] == []
        plain = QueueServerControl(server.settings()).request("3", "stop", {}, 1.0)
        assert plain.status == "expired"
