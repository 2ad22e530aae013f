import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import zmq
import zmq.auth
from deadline import wait_until
from logs import capture_logs

from xas_agent.adapters.zmq.socket import Endpoint, EndpointSocket
from xas_agent.agent.types.errors import InputError


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Folder with the CURVE certificates of a server."""
    folder = tmp_path_factory.mktemp("keys")
    zmq.auth.create_certificates(folder, "server")
    (folder / "server.key_secret").chmod(0o600)
    return folder


def test_a_public_certificate_is_no_secret_key(keys):
    endpoint = Endpoint(address="127.0.0.1:0", bind=True, curve_secret_key=keys / "server.key")
    with pytest.raises(InputError, match="expected one with the secret key"):
        EndpointSocket(endpoint, zmq.SUB)


def test_a_secret_key_that_others_may_read_is_refused(keys, tmp_path, monkeypatch):
    key = tmp_path / "server.key_secret"
    key.write_bytes((keys / "server.key_secret").read_bytes())
    key.chmod(0o640)
    endpoint = Endpoint(address="127.0.0.1:0", bind=True, curve_secret_key=key)
    with pytest.raises(InputError, match=f"others may read this secret key: chmod 600 {key}"):
        EndpointSocket(endpoint, zmq.SUB)
    # A secret that a container mounts belongs to root, and only root can change its mode.
    monkeypatch.setattr(os, "getuid", lambda: key.stat().st_uid + 1)
    with capture_logs() as logs:
        EndpointSocket(endpoint, zmq.SUB).close()
    assert [line["event"] for line in logs] == ["others may read the secret key, which belongs to another user"]


@pytest.mark.parametrize(
    "content", ["", "dear colleague", "public-key", 'public-key = "abc"', f'public-key = "{"é" * 40}"']
)
@pytest.mark.parametrize("where", ["curve_secret_key", "curve_server_key", "curve_client_keys"])
def test_a_bad_certificate_is_named(keys, tmp_path, content, where):
    bad = tmp_path / "bad.key"
    bad.write_text(content, encoding="utf-8")
    curve = {"curve_secret_key": keys / "server.key_secret"}
    curve |= {"curve_server_key": keys / "server.key"} if where == "curve_server_key" else {"bind": True}
    curve[where] = tmp_path if where == "curve_client_keys" else bad
    endpoint = Endpoint(address="127.0.0.1:1", **curve)
    with pytest.raises(InputError) as error:
        EndpointSocket(endpoint, zmq.SUB)
    for part in (f"{bad}: not a CURVE certificate", "expected a file of xas-agent keys make"):
        assert part in str(error.value)


@pytest.mark.parametrize("address", ["foo", "127.0.0.1", "http://127.0.0.1:80", "127.0.0.1:70000", ""])
def test_an_address_given_alone_is_a_user_error(address):
    with pytest.raises(InputError, match=f"found '{address}', expected zmq://HOST:PORT or ipc:///PATH"):
        Endpoint.at(address)


@pytest.mark.parametrize("address", ["zmq://127.0.0.1:5578", "tcp://127.0.0.1:5578", "127.0.0.1:5578"])
def test_addresses_of_one_endpoint(address):
    assert Endpoint.at(address).zmq_address == "tcp://127.0.0.1:5578"


# ------------------------------------------------------------------- the connection

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


@contextmanager
def publisher(address: str) -> Iterator[None]:
    with zmq.Context() as context, context.socket(zmq.PUB) as pub:
        pub.linger = 0
        pub.connect(address)
        yield


def probe(address: str, sent: bytes) -> None:
    """Connect, send bytes that are no handshake, and wait until the other side closes the connection."""
    host, port = address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), 10) as stranger, suppress(ConnectionResetError):
        stranger.sendall(sent)
        stranger.shutdown(socket.SHUT_WR)
        while stranger.recv(4096):
            pass


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.0\r\n\r\n", GREETING + b"no handshake" * 9])
def test_a_bound_socket_is_connected_while_a_peer_is_whatever_strangers_do(sent):
    with capture_logs() as lines, EndpointSocket(Endpoint(address="127.0.0.1:0", bind=True), zmq.SUB) as link:
        link.socket.subscribe("")
        address = link.attach_and_wait(threading.Event())
        assert not link.connected
        probe(address, sent)
        assert not link.watch_connection()
        for _ in range(2):
            with publisher(address):
                wait_until(lambda: link.watch_connection())
                for _ in range(2):
                    probe(address, sent)
                    assert link.watch_connection()
                with publisher(address):
                    wait_until(lambda: link.watch_connection() and link._peers == 2)
                wait_until(lambda: link.watch_connection() and link._peers == 1)
            wait_until(lambda: not link.watch_connection())
    lost, again = "connection lost", "connected again; documents sent meanwhile are lost"
    assert [line["event"] for line in lines if line["event"].startswith("connect")] == [lost, again, lost]
