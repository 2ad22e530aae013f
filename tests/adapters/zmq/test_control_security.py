"""Who may command, and that no stranger's request changes what becomes of the agent's own."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
import zmq
from deadline import wait_until
from logs import capture_logs

from xas_agent.adapters.errors import EndpointUnreachable
from xas_agent.adapters.zmq import authentication, control_server, guard
from xas_agent.adapters.zmq.authentication import SECRET_VARIABLE, ControlEndpoint, signed
from xas_agent.adapters.zmq.control import ZMQControl
from xas_agent.adapters.zmq.control_server import ControlServer
from xas_agent.adapters.zmq.keys import make_keys, make_secret, read_certificate, revoke
from xas_agent.agent.types.errors import InputError
from xas_agent.agent.types.protocols import Reply
from xas_agent.sim_beamline.plan_state import PlanState

SECRET = "a secret of more than sixteen characters"
OTHER = Reply("rejected", "the id belongs to an earlier request with another action or other arguments")


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)


@contextmanager
def server_of(handler: Callable, address: str = "127.0.0.1:0", **keys) -> Iterator[ControlServer]:
    endpoint = ControlEndpoint(address=address, bind=True, **keys)
    with closing(ControlServer(endpoint, handler, lease_s=None)) as server:
        yield server


@contextmanager
def dealer(address: str) -> Iterator[zmq.Socket]:
    """A stranger's socket, which may send any number of requests at once."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as made:
        made.linger, made.rcvtimeo, made.sndhwm = 0, 5000, 0
        made.connect(address)
        yield made


def ask(stranger: zmq.Socket, content: object) -> dict:
    stranger.send_multipart([b"", json.dumps(content).encode()])
    return json.loads(stranger.recv_multipart()[-1])


def refusals(lines: list[dict]) -> list[dict]:
    return [line for line in lines if line["event"] == "client refused"]


# ------------------------------------------------------------------ a shared secret


def test_a_forged_resume_is_refused_and_the_charge_stops():
    charge = PlanState()
    charge.start()
    with capture_logs() as lines, server_of(charge.obey) as server, dealer(server.address) as stranger:
        for forged in (
            {"id": "next", "action": "resume", "args": {}},
            {"id": "next", "action": "resume", "args": {}, "auth": "0" * 64},
            signed({"id": "next", "action": "resume", "args": {}}, b"another secret"),
        ):
            answer = ask(stranger, forged)
            assert (answer["id"], answer["status"]) == ("next", "rejected")
            assert answer["reason"] == "not authorised: auth does not prove the shared secret"
        with closing(ZMQControl(server.address)) as control:
            assert control.request("next", "stop", {}, 5).status == "acknowledged"
    assert charge.stopped
    (line,) = refusals(lines)
    assert line["client"] == "127.0.0.1"
    assert not any(SECRET in str(line) for line in lines)


def test_a_changed_request_is_refused():
    done: list = []
    with server_of(lambda *request: done.append(request) or Reply("acknowledged")) as server:
        request = signed(
            {"id": "a", "action": "pause", "args": {}, "time": authentication.time.time()}, SECRET.encode()
        )
        with dealer(server.address) as stranger:
            for change in ({"action": "stop"}, {"id": "b"}, {"args": {"x": 1}}, {"time": request["time"] + 1}):
                assert ask(stranger, request | change)["status"] == "rejected"
            assert done == []
            assert ask(stranger, request)["status"] == "acknowledged"


@pytest.mark.parametrize("jump_s", [-3 * 3600.0, 3 * 3600.0])
def test_a_clock_that_jumps_locks_nobody_out(jump_s, monkeypatch):
    charge = PlanState()
    charge.start()
    clock = authentication.time.time
    with server_of(charge.obey) as server, closing(ZMQControl(server.address)) as control:
        monkeypatch.setattr(authentication.time, "time", lambda: clock() + jump_s)
        assert control.request("a", "stop", {}, 5).status == "acknowledged"
    assert charge.stopped


def test_an_old_request_is_answered_again_at_first_and_refused_later(monkeypatch):
    done: list = []

    def handler(action, args):
        done.append(action)
        return Reply("acknowledged", str(len(done)))

    now = authentication.time.time()
    request = signed({"id": "a", "action": "stop", "args": {}, "time": now}, SECRET.encode())
    monkeypatch.setattr(control_server.time, "time", lambda: now)
    with server_of(handler) as server, dealer(server.address) as stranger:
        assert [ask(stranger, request)["reason"] for _ in range(2)] == ["1", "1"]
        monkeypatch.setattr(control_server.time, "time", lambda: now + 61)
        assert "not sent within the last 60 s" in ask(stranger, request)["reason"]
    monkeypatch.setattr(control_server.time, "time", lambda: now + 1)
    with server_of(handler) as server, dealer(server.address) as stranger:  # which remembers nothing
        assert "before this server started" in ask(stranger, request)["reason"]
    assert done == ["stop"]


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "acknowledged"},
        {"status": "rejected", "reason": "already running"},
        {"status": "acknowledged", "auth": "0" * 64},
        {"status": "acknowledged", "request": "another"},
    ],
)
def test_an_answer_that_does_not_prove_the_secret_leaves_the_outcome_open(answer):
    with zmq.Context() as context, context.socket(zmq.REP) as rep:
        rep.linger, rep.rcvtimeo = 0, 5000
        port = rep.bind_to_random_port("tcp://127.0.0.1")
        replies: list = []
        asking = threading.Thread(
            target=lambda: replies.append(ZMQControl(f"127.0.0.1:{port}").request("a", "stop", {}, 5))
        )
        asking.start()
        rep.recv()
        content = {"id": "a", **answer}
        # One who overheard an answer to another request may send it again.
        rep.send_json(signed(content, SECRET.encode()) if "request" in content else content)
        asking.join(10)
    assert replies[0].status == "expired"
    assert "without proof of the shared secret" in replies[0].reason


@pytest.mark.parametrize("deep", [b"[" * 900 + b"]" * 900, b'{"a":' * 900 + b"1" + b"}" * 900, b'"\\ud800"'])
def test_json_that_is_odd_gets_an_answer(deep):
    with server_of(lambda *_: Reply("acknowledged")) as server, dealer(server.address) as stranger:
        for auth in (b'"0"', b'"\\ud800"', b"0"):
            stranger.send_multipart([b"", b'{"auth": %s, "x": %s}' % (auth, deep)])
            assert json.loads(stranger.recv_multipart()[-1])["status"] == "rejected"
        assert ZMQControl(server.address).request("a", "stop", {}, 5).status == "acknowledged"


def test_a_flood_of_strangers_delays_no_stop():
    with server_of(lambda action, args: Reply("acknowledged")) as server, ExitStack() as stack:
        strangers = [stack.enter_context(dealer(server.address)) for _ in range(50)]
        for n in range(100):
            for stranger in strangers:
                stranger.send_multipart([b"", b'{"id": %d, "action": "stop"}' % n])
        with closing(ZMQControl(server.address)) as control:
            assert control.request("a", "stop", {}, 2) == Reply("acknowledged")


# ------------------------------------------------------------------ order and limits


def test_stop_and_abort_pass_before_what_is_in_progress(tmp_path):
    go, done = threading.Event(), []

    def handler(action, args):
        if action == "pause":
            go.wait(10)
        done.append(action)
        return Reply("acknowledged")

    with server_of(handler, f"ipc://{tmp_path}/control") as server, dealer(server.address) as flood:
        for n in range(5000):
            flood.send_multipart([b"", b'{"id": %d, "action": "pause"}' % n])
        with closing(ZMQControl(server.address)) as control:
            for action in ("stop", "abort"):
                assert control.request(action, action, {}, 5) == Reply("acknowledged")
        answers = [json.loads(flood.recv_multipart()[-1]) for _ in range(100)]
        assert {answer["reason"] for answer in answers} == {"8 requests of this client are in progress"}
        go.set()
    assert done[:2] == ["stop", "abort"]


def test_an_id_stands_for_one_action_with_its_arguments(tmp_path):
    begun, go, done = threading.Event(), threading.Event(), []

    def handler(action, args):
        begun.set()
        go.wait(10)
        done.append(action)
        return Reply("acknowledged")

    with server_of(handler, f"ipc://{tmp_path}/control") as server, closing(ZMQControl(server.address)) as control:
        assert control.request("a", "pause", {"x": 1, "y": 2}, 0.2).status == "expired"
        assert begun.is_set()
        for _ in range(2):  # in progress, then answered
            assert control.request("a", "resume", {"x": 1, "y": 2}, 5) == OTHER
            assert control.request("a", "pause", {"x": 2, "y": 2}, 5) == OTHER
            go.set()
            assert control.request("a", "pause", {"y": 2, "x": 1}, 5) == Reply("acknowledged")
    assert done == ["pause"]


# ------------------------------------------------------------------ what may bind


@pytest.mark.parametrize("address", ["0.0.0.0:0", "*:0", "beamline:5579"])
@pytest.mark.parametrize("bind", [True, False])
def test_a_control_that_other_machines_reach_needs_curve(address, bind):
    make = (lambda e: ControlServer(e, lambda *_: Reply("acknowledged"))) if bind else ZMQControl
    with pytest.raises(InputError, match=r"other machines reach .* set curve_secret_key"):
        make(ControlEndpoint(address=address, bind=bind))


@pytest.mark.parametrize("bind", [True, False])
def test_a_control_on_this_machine_needs_a_secret(monkeypatch, bind):
    monkeypatch.delenv(SECRET_VARIABLE)
    with pytest.raises(
        InputError, match=f"every process of this machine.*set secret_file or the variable {SECRET_VARIABLE}"
    ):
        ControlEndpoint(address="127.0.0.1:5579", bind=bind).shared_secret()
    monkeypatch.setenv(SECRET_VARIABLE, "short")
    with pytest.raises(InputError, match="found 5 characters, expected a secret of at least 16"):
        ControlEndpoint(address="127.0.0.1:5579", bind=bind).shared_secret()


def test_a_secret_in_a_file_belongs_to_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.delenv(SECRET_VARIABLE)
    file = tmp_path / "secret"
    make_secret(file)
    assert file.stat().st_mode & 0o777 == 0o600
    with server_of(lambda *_: Reply("acknowledged"), secret_file=file) as server:
        control = ZMQControl(ControlEndpoint(address=server.address, secret_file=file))
        assert control.request("a", "stop", {}, 5).status == "acknowledged"
    assert file.read_text().strip() not in repr(ControlEndpoint(address="127.0.0.1:1", secret_file=file))
    with pytest.raises(InputError, match="File exists"):
        make_secret(file)
    file.chmod(0o640)
    with pytest.raises(InputError, match="others may read this secret; chmod 600"):
        ControlEndpoint(address="127.0.0.1:5579", secret_file=file).shared_secret()
    with pytest.raises(InputError, match="no effect beside CURVE or a Unix socket"):
        ControlEndpoint(address="ipc:///control", secret_file=file).shared_secret()


def test_a_unix_socket_is_its_owners_alone_and_replaces_nothing(tmp_path):
    path = tmp_path / "control"
    with server_of(lambda *_: Reply("acknowledged"), f"ipc://{path}"):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(EndpointUnreachable, match="is in use"), server_of(print, f"ipc://{path}"):
            pass
    path.unlink(missing_ok=True)
    path.write_text("data")
    with pytest.raises(EndpointUnreachable, match="exists and is no socket"), server_of(print, f"ipc://{path}"):
        pass
    assert path.read_text() == "data"


# ------------------------------------------------------------------ CURVE


@pytest.fixture
def keys(tmp_path):
    folder = tmp_path / "keys"
    for name in ("agent", "gone"):
        make_keys(folder, name, client=True)
    for name in ("server", "stranger", "impostor"):
        make_keys(folder, name, client=False)
    return folder


@contextmanager
def curve_server(keys, handler) -> Iterator[ControlServer]:
    with server_of(
        handler, curve_secret_key=keys / "server.key_secret", curve_client_keys=keys / "clients"
    ) as server:
        yield server


def client_of(server: ControlServer, keys, name: str, server_key: str = "server") -> ZMQControl:
    curve = {"curve_secret_key": keys / f"{name}.key_secret", "curve_server_key": keys / f"{server_key}.key"}
    return ZMQControl(ControlEndpoint(address=server.address, **curve))


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda server, keys: ZMQControl(server.address), "it shows no key"),
        (lambda server, keys: client_of(server, keys, "stranger"), "its key is not permitted"),
        (lambda server, keys: client_of(server, keys, "agent", "impostor"), "it shows no key"),
    ],
)
def test_a_stranger_gets_nothing_in_and_nothing_out(keys, make, cause):
    done: list = []
    with (
        capture_logs() as lines,
        curve_server(keys, lambda action, args: done.append(action) or Reply("acknowledged")) as server,
    ):
        for n in range(3):
            assert "did not answer" in make(server, keys).request(str(n), "stop", {}, 0.5).reason
        assert client_of(server, keys, "agent").request("a", "notify", {}, 5) == Reply("acknowledged")
    assert done == ["notify"]
    (line,) = refusals(lines)
    assert line["reason"].startswith(cause)


def test_a_revoked_client_is_out_at_once(keys, monkeypatch):
    monkeypatch.setattr(guard, "_REREAD_AFTER_S", 0.0)
    done: list = []
    with (
        capture_logs() as lines,
        curve_server(keys, lambda action, args: done.append(action) or Reply("acknowledged")) as server,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as connected,
    ):
        connected.linger, connected.rcvtimeo = 0, 1000
        connected.curve_publickey, connected.curve_secretkey = zmq.auth.load_certificate(keys / "gone.key_secret")
        connected.curve_serverkey = zmq.auth.load_certificate(keys / "server.key")[0]
        connected.connect(server.address)
        assert ask(connected, {"id": 1, "action": "pause"})["status"] == "acknowledged"
        revoke(keys, "gone")
        for n in range(2, 5):
            connected.send_multipart([b"", b'{"id": %d, "action": "stop"}' % n])
        with pytest.raises(zmq.Again):
            connected.recv_multipart()
        assert "did not answer" in client_of(server, keys, "gone").request("5", "stop", {}, 0.5).reason
        assert client_of(server, keys, "agent").request("a", "notify", {}, 5) == Reply("acknowledged")
    assert done == ["pause", "notify"]
    assert len(refusals(lines)) == 1


def test_a_failing_guard_lets_nobody_in_and_can_be_closed(keys, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    done: list = []
    with (
        capture_logs() as lines,
        curve_server(keys, lambda action, args: done.append(action) or Reply("acknowledged")) as server,
    ):
        with monkeypatch.context() as broken:
            broken.setattr(guard.Refusals, "__call__", fail)
            broken.setattr(guard, "_REREAD_AFTER_S", 0.0)
            (keys / "clients").rename(keys / "away")
            for stranger in (ZMQControl(server.address), client_of(server, keys, "agent")):
                assert "did not answer" in stranger.request("a", "stop", {}, 0.5).reason
            (keys / "away").rename(keys / "clients")
        wait_until(lambda: client_of(server, keys, "agent").request("b", "notify", {}, 1) == Reply("acknowledged"))
        closing = threading.Thread(target=server.close, daemon=True)
        closing.start()
        closing.join(60)
        assert not closing.is_alive()
    assert done == ["notify"]
    assert sum(line["event"] == "folder of keys not readable: nobody is permitted" for line in lines) == 1


def test_a_file_that_is_no_certificate_is_logged_once(keys, monkeypatch):
    monkeypatch.setattr(guard, "_REREAD_AFTER_S", 0.0)
    allowed = guard.AllowList(keys / "clients")
    key = read_certificate(keys / "agent.key")[0].decode()
    (keys / "clients" / "bad.key").write_text("dear colleague")
    with capture_logs() as lines:
        assert [key in allowed for _ in range(5)] == [True] * 5
    (line,) = lines
    assert "bad.key: not a CURVE certificate" in line["detail"]


def test_clients_do_not_share_ids(keys):
    with curve_server(keys, lambda action, args: Reply("acknowledged", action)) as server:
        assert client_of(server, keys, "gone").request("a", "resume", {}, 5).reason == "resume"
        assert client_of(server, keys, "agent").request("a", "stop", {}, 5).reason == "stop"


def test_curve_without_a_list_of_clients_identifies_nobody(keys, monkeypatch):
    monkeypatch.delenv(SECRET_VARIABLE)
    with pytest.raises(InputError, match="curve_client_keys"):
        ControlEndpoint(address="127.0.0.1:0", bind=True, curve_secret_key=keys / "server.key_secret").shared_secret()
