import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from tempfile import TemporaryDirectory

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from lossy import lossy_proxy

from xas_agent.adapters.errors import EndpointUnreachable
from xas_agent.adapters.zmq import control as zmq_control
from xas_agent.adapters.zmq import control_server
from xas_agent.adapters.zmq.authentication import ControlEndpoint
from xas_agent.adapters.zmq.control import ZMQControl
from xas_agent.adapters.zmq.control_server import ControlServer, Request, RequestServer
from xas_agent.agent.types.errors import InputError
from xas_agent.agent.types.protocols import Reply

SERVER = """
import sys
from xas_agent.adapters.zmq import ControlServer
from xas_agent.agent.types.protocols import Reply
server = ControlServer(sys.argv[1], lambda action, args: Reply("acknowledged", f"{action} {args}"))
print(server.address, flush=True)
sys.stdin.readline()
server.close()
"""


@contextmanager
def pair(handler: Callable) -> Iterator[tuple[ControlServer, ZMQControl]]:
    """A server and a client of one user, on a Unix socket."""
    with (
        TemporaryDirectory() as folder,
        closing(ControlServer(f"ipc://{folder}/control", handler)) as server,
        closing(ZMQControl(server.address)) as control,
    ):
        yield server, control


@contextmanager
def raw_client(address: str) -> Iterator[Callable[[bytes], dict]]:
    """Sends any bytes and returns the answer."""
    with zmq.Context() as context, context.socket(zmq.REQ) as req:
        req.linger, req.rcvtimeo = 0, 5000
        req.connect(address)

        def ask(payload: bytes) -> dict:
            req.send(payload)
            return json.loads(req.recv())

        yield ask


def test_a_request_reaches_a_server_in_another_process(tmp_path):
    command = [sys.executable, "-c", SERVER, f"ipc://{tmp_path}/control"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with closing(ZMQControl(process.stdout.readline().strip())) as control:
            reply = control.request("1", "stop", {"x": 0.5}, 10)
    assert reply == Reply("acknowledged", "stop {'x': 0.5}")
    assert process.returncode == 0


def test_a_repeated_id_is_answered_again_and_not_done_again():
    done: list = []

    def handler(action, args):
        done.append(action)
        return Reply("rejected", f"no {len(done)}")

    with pair(handler) as (_, control):
        first = control.request("a", "stop", {}, 5)
        assert control.request("a", "stop", {}, 5) == first == Reply("rejected", "no 1")
        assert control.request("b", "stop", {}, 5) == Reply("rejected", "no 2")
    assert done == ["stop", "stop"]


def test_a_question_is_answered_each_time_and_waits_for_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(control_server, "_MAX_ANSWERED_IDS", 1)
    asked, finish = [], threading.Event()

    def carry_out(request: Request) -> Reply:
        asked.append((request.id, request.action))
        if request.action == "pause":
            finish.wait(30)
        return Reply("acknowledged", data={"asked": len(asked)} if request.action == "status" else {})

    with (
        closing(RequestServer(f"ipc://{tmp_path}/control", carry_out, queries=["status"])) as server,
        closing(ZMQControl(server.address)) as control,
    ):
        assert control.request("a", "stop", {}, 5) == Reply("acknowledged")
        assert control.request("b", "pause", {}, 0.2).status == "expired"
        for n in (3, 4):
            assert control.request("q", "status", {}, 5) == Reply("acknowledged", data={"asked": n})
        # The answers to questions do not push out those of actions.
        assert control.request("a", "stop", {}, 5) == Reply("acknowledged")
        finish.set()
    assert asked == [("a", "stop"), ("b", "pause"), ("q", "status"), ("q", "status")]


def test_an_unanswered_request_is_sent_again_and_done_once(tmp_path):
    done: list = []
    with (
        pair(lambda action, args: done.append(action) or Reply("acknowledged")) as (server, _),
        lossy_proxy(server.address, tmp_path, share=0.3) as (lossy, losses),
        closing(ZMQControl(lossy, retry_s=0.05)) as control,
    ):
        for n in range(30):
            assert control.request(str(n), f"action {n}", {}, 30) == Reply("acknowledged")
    assert done == [f"action {n}" for n in range(30)]
    assert losses.counts["lost"]


def test_a_repeated_id_waits_for_the_first_that_is_still_in_progress():
    begun, finish, done = threading.Event(), threading.Event(), []

    def handler(action, args):
        begun.set()
        finish.wait(10)
        done.append(action)
        return Reply("acknowledged", "paused")

    with pair(handler) as (_, control):
        assert control.request("a", "pause", {}, 0.2).status == "expired"
        assert begun.is_set()
        again: list = []
        asking = threading.Thread(target=lambda: again.append(control.request("a", "pause", {}, 10)))
        asking.start()
        assert control.request("a", "pause", {}, 0.2).status == "expired"
        finish.set()
        asking.join(10)
    assert again == [Reply("acknowledged", "paused")]
    assert done == ["pause"]


def test_answers_are_remembered_within_bounds(monkeypatch):
    monkeypatch.setattr(control_server, "_MAX_ANSWERED_IDS", 2)
    done: list = []

    def handler(action, args):
        done.append(action)
        return Reply("acknowledged")

    with pair(handler) as (_, control):
        for id in "abca":
            control.request(id, id, {}, 5)
    assert done == ["a", "b", "c", "a"]


def test_too_many_requests_in_progress_are_rejected(monkeypatch):
    monkeypatch.setattr(control_server, "_MAX_UNANSWERED", 1)
    finish = threading.Event()

    def handler(action, args):
        finish.wait(10)
        return Reply("acknowledged")

    with pair(handler) as (_, control):
        assert control.request("a", "pause", {}, 0.2).status == "expired"
        assert control.request("b", "resume", {}, 5) == Reply("rejected", "1 requests are in progress")
        finish.set()


def test_a_handler_that_fails_leaves_the_outcome_open():
    done: list = []

    def handler(action, args):
        done.append(action)
        if action == "stop":
            raise KeyError(action)

    with pair(handler) as (_, control):
        for _ in range(2):
            assert control.request("a", "stop", {}, 5) == Reply("expired", "outcome unknown: KeyError: 'stop'")
        reply = control.request("b", "pause", {}, 5)
        assert reply.status == "expired"
        assert "expected a Reply" in reply.reason
    assert done == ["stop", "pause"]


def test_a_request_that_fails_once_sent_leaves_the_outcome_open(monkeypatch):
    done = threading.Event()

    def lost(*_: object) -> bool:
        assert done.wait(5)
        raise OSError("link lost")

    with pair(lambda action, args: done.set() or Reply("acknowledged")) as (_, control):
        monkeypatch.setattr(zmq_control, "wait", lost)
        reply = control.request("a", "stop", {}, 5)
    assert reply == Reply("expired", "sent, outcome unknown: OSError: link lost")


def test_a_closed_control_sends_nothing():
    done: list = []
    with pair(lambda action, args: done.append(action) or Reply("acknowledged")) as (server, control):
        control.close()
        assert control.request("a", "stop", {}, 5) == Reply("rejected", "the control is closed")
        assert ZMQControl(server.address).request("b", "notify", {}, 5).status == "acknowledged"
    assert done == ["notify"]


@pytest.mark.parametrize(
    ("payload", "id"),
    [
        (b"", None),
        (b"stop", None),
        (b"\xff\xfe", None),
        (b"[1]", None),
        (b"{}", None),
        (b"[" * 100_000, None),
        (b'{"id": "a"}', "a"),
        (b'{"id": 7}', 7),
        (b'{"id": 1' + 400 * b"0" + b"}", 10**400),
        (b'{"id": "a", "action": "stop", "args": 3}', "a"),
        (b'{"id": "", "action": "stop"}', ""),
        (b'{"id": null, "action": "stop"}', None),
        (b'{"id": true, "action": "stop"}', True),
        (b'{"id": [1], "action": "stop"}', None),
        (b'{"id": 1e999, "action": "stop"}', None),
    ],
)
def test_a_malformed_request_is_rejected_with_a_reason(payload, id):
    with pair(lambda action, args: Reply("acknowledged")) as (server, control):
        with raw_client(server.address) as ask:
            answer = ask(payload)
        assert answer["status"] == "rejected"
        assert answer["reason"].startswith("malformed request: ")
        assert answer["id"] == id
        assert control.request("b", "notify", {}, 5) == Reply("acknowledged")


def test_what_a_request_leaves_empty_or_adds_is_ignored():
    with (
        pair(lambda action, args: Reply("acknowledged", f"{action} {args}")) as (server, _),
        raw_client(server.address) as ask,
    ):
        for n, rest in enumerate((b'"args": null', b'"args": {}, "sender": "queue", "version": 2', b'"note": null')):
            answer = ask(b'{"id": %d, "action": "stop", %s}' % (n, rest))
            assert answer == {"id": n, "status": "acknowledged", "reason": "stop {}"}


def test_ids_are_told_apart_and_echoed_as_json_has_them():
    done: list = []
    ids = [1, "1", 1.0, 1.5, -1, "ä", '"', 2**70]
    with (
        pair(lambda action, args: done.append(action) or Reply("acknowledged", str(len(done)))) as (server, _),
        raw_client(server.address) as ask,
    ):
        for _ in range(2):
            answers = [ask(json.dumps({"id": id, "action": "stop"}).encode()) for id in ids]
            assert [(type(a["id"]), a["id"]) for a in answers] == [(type(id), id) for id in ids]
            assert [a["reason"] for a in answers] == [str(n) for n in range(1, len(ids) + 1)]
    assert len(done) == len(ids)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


def test_any_json_gets_an_answer_and_its_own_id_if_it_has_one():
    with (
        pair(lambda action, args: Reply("acknowledged")) as (server, _),
        raw_client(server.address) as ask,
    ):

        @given(st.fixed_dictionaries({}, optional={"id": anything, "action": anything, "args": anything}))
        def answered(request):
            answer = ask(json.dumps(request).encode())
            id = request.get("id")
            usable = bool(id) or (id == 0 and not isinstance(id, bool))
            if answer["status"] == "acknowledged":
                assert usable
                assert answer["id"] == id
            else:
                assert answer["reason"].startswith("malformed request: ")
                assert answer["id"] in (id, None)

        answered()


def test_any_bytes_get_an_answer():
    with (
        pair(lambda action, args: Reply("acknowledged")) as (server, _),
        raw_client(server.address) as ask,
    ):

        @given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
        def answered(payload):
            assert ask(payload)["status"] == "rejected"

        answered()


def test_nobody_there_expires(tmp_path):
    address = f"ipc://{tmp_path}/control"
    control = ZMQControl(address)
    assert control.request("a", "stop", {}, 0.1) == Reply("expired", f"{address} did not answer within 0.1 s")
    # What expired must not reach a server that comes up later.
    done: list = []
    with closing(ControlServer(address, lambda action, args: done.append(action) or Reply("acknowledged"))):
        assert control.request("b", "notify", {}, 5) == Reply("acknowledged")
    assert done == ["notify"]


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (b"yes", "expired", "unusable answer, outcome unknown (not JSON"),
        (b"[" * 100_000, "expired", "unusable answer, outcome unknown (not JSON"),
        (b'{"id": "a", "status": "done"}', "expired", "unusable answer, outcome unknown (status"),
        (b'{"id": "b", "status": "acknowledged"}', "expired", "unusable answer, outcome unknown"),
        (b'{"status": "acknowledged"}', "expired", "unusable answer, outcome unknown"),
        (b'{"id": null, "status": "rejected", "reason": "not a request"}', "rejected", "not a request"),
        (b'{"id": "a", "status": "acknowledged", "reason": null, "took_s": 0.1}', "acknowledged", ""),
        (b'{"id": "a", "status": "acknowledged"}', "acknowledged", ""),
    ],
)
def test_an_answer_is_what_it_says_or_leaves_the_outcome_open(tmp_path, answer, status, reason):
    with zmq.Context() as context, context.socket(zmq.REP) as rep:
        rep.linger, rep.rcvtimeo = 0, 5000
        rep.bind(address := f"ipc://{tmp_path}/control")
        control = ZMQControl(address)
        replies: list = []
        asking = threading.Thread(target=lambda: replies.append(control.request("a", "stop", {}, 5)))
        asking.start()
        request = json.loads(rep.recv())
        assert f":{os.getpid()}:" in request.pop("agent")
        assert request == {"id": "a", "action": "stop", "args": {}}
        rep.send(answer)
        asking.join(10)
    assert replies[0].status == status
    assert replies[0].reason.startswith(reason)


def test_arguments_without_a_json_form_reject():
    reply = ZMQControl("ipc:///nowhere").request("a", "stop", {"what": object()}, 1)
    assert reply == Reply("rejected", "TypeError: object has no JSON form")


def test_closing_ends_a_request_in_progress():
    finish = threading.Event()
    with pair(lambda action, args: Reply("acknowledged") if finish.wait(10) else None) as (_, control):
        replies: list = []
        asking = threading.Thread(target=lambda: replies.append(control.request("a", "stop", {}, 60)))
        asking.start()
        control.close()
        asking.join(5)
        finish.set()
    assert replies == [Reply("expired", "the control was closed")]


def test_a_server_says_when_it_cannot_bind():
    with pair(lambda action, args: Reply("acknowledged")) as (server, _):
        with pytest.raises(EndpointUnreachable, match="in use"):
            ControlServer(server.address, lambda action, args: Reply("acknowledged"))
        with pytest.raises(InputError, match="bind: true"):
            ControlServer(ControlEndpoint(address=server.address), lambda action, args: Reply("acknowledged"))


@pytest.mark.parametrize("address", ["foo", "", "http://127.0.0.1:80", "127.0.0.1:70000"])
@pytest.mark.parametrize("side", [ZMQControl, lambda address: ControlServer(address, lambda *_: Reply("rejected"))])
def test_an_address_that_is_invalid_is_a_user_error(side, address):
    with pytest.raises(InputError, match=f"found '{address}', expected zmq://HOST:PORT"):
        side(address)
