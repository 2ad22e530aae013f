"""Who answers at the addresses of a config."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import zmq
from kafka_cluster import Cluster
from nats_server import Server

from xas_agent.app.jobs.endpoints import Silent, ask


@contextmanager
def web(status: int, body: bytes) -> Iterator[int]:
    """A web server that answers everything so; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextmanager
def listening(said: bytes = b"") -> Iterator[int]:
    """A process that listens, says something and then is silent; yields its port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    link = server.accept()[0]
                    link.sendall(said)
                    kept.append(link)
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for link in kept:
        link.close()


def test_zmq_by_tcp_and_by_a_unix_socket(tmp_path: Path):
    with zmq.Context() as context, context.socket(zmq.XPUB) as proxy:
        port = proxy.bind_to_random_port("tcp://127.0.0.1")
        proxy.bind(f"ipc://{tmp_path}/s")
        for address in (
            f"zmq://127.0.0.1:{port}",
            f"tcp://127.0.0.1:{port}",
            f"127.0.0.1:{port}",
            f"ipc://{tmp_path}/s",
        ):
            assert ask(address, 10) == "a ZMQ socket"


def test_a_nats_server(tmp_path: Path):
    server = Server(tmp_path)
    try:
        assert ask(server.address, 10) == "a NATS server"
    finally:
        server.kill()


def test_a_kafka_broker():
    cluster = Cluster(1)
    assert ask(f"kafka://{cluster.brokers}", 10) == "a Kafka broker"


def test_web_servers_and_tiled_among_them():
    with web(404, b"") as port:
        assert ask(f"http://127.0.0.1:{port}/hook", 10) == "a web server"
        with pytest.raises(Silent, match="Tiled"):
            ask(f"tiled://127.0.0.1:{port}/bmm/raw", 10)
    with web(200, b'{"api_version": 0, "library_version": "0.1"}') as port:
        for address in (f"tiled://127.0.0.1:{port}/bmm", f"http://127.0.0.1:{port}/api/v1"):
            assert ask(address, 10) == "a Tiled server"


def test_a_mail_server():
    with listening(b"220 mail ready\r\n") as port:
        assert ask(f"smtp://127.0.0.1:{port}", 10) == "a mail server"


@pytest.mark.parametrize("scheme", ["zmq", "nats", "kafka", "http", "tiled", "smtp"])
@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.6\r\n" + bytes(99)])
def test_another_program_at_the_port(scheme: str, said: bytes):
    with listening(said) as port, pytest.raises(Silent):
        ask(f"{scheme}://127.0.0.1:{port}", 0.2)


def test_nothing_listens():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        for scheme in ("zmq", "nats", "kafka", "http", "tiled"):
            with pytest.raises(ConnectionRefusedError):
                ask(f"{scheme}://127.0.0.1:{probe.getsockname()[1]}", 10)
