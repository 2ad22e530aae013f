"""The HTTP endpoint of health and metrics, with real sockets."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import prometheus_client
import pytest
from prometheus_client.core import GaugeMetricFamily
from pydantic import ValidationError

from xas_agent.adapters.errors import EndpointUnreachable
from xas_agent.adapters.health import _MAX_CLIENTS, HealthServer
from xas_agent.adapters.health_settings import HealthSettings


class Seven:
    def collect(self) -> "Iterator[prometheus_client.Metric]":
        yield GaugeMetricFamily("seven", "A number", 7)


@contextmanager
def server_of(wrong: list[str], address: str = "127.0.0.1:0") -> Iterator[HealthServer]:
    server = HealthServer(HealthSettings(address=address), {"/readyz": lambda: wrong}, Seven())
    try:
        yield server
    finally:
        server.close()


def get(url: str, method: str = "GET") -> tuple[int, str]:
    try:
        with urlopen(Request(url, method=method), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
def test_a_check_answers_200_or_what_is_wrong(address: str) -> None:
    if "::1" in address and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 on this machine")
    wrong: list[str] = []
    with server_of(wrong, address) as server:
        assert get(f"{server.url}/readyz") == (200, "ok\n")
        wrong += ["no source", "no models"]
        assert get(f"{server.url}/readyz") == (503, "no source\nno models\n")


def test_metrics_are_those_of_the_collector_alone() -> None:
    with server_of([]) as server:
        status, text = get(f"{server.url}/metrics")
    assert status == 200
    assert [line for line in text.splitlines() if not line.startswith("#")] == ["seven 7.0"]
    assert b"seven" not in prometheus_client.generate_latest()


def test_other_paths_and_methods_are_refused() -> None:
    with server_of([]) as server:
        assert get(server.url)[0] == 404
        assert get(f"{server.url}/readyz", "POST")[0] == 405
        assert get(f"{server.url}/readyz", "HEAD") == (200, "")


def test_a_port_in_use_is_one_error_with_what_to_do() -> None:
    with server_of([]) as server:
        address = server.url.removeprefix("http://")
        with pytest.raises(EndpointUnreachable, match=r"port \d+ is in use: name another one with --health, or 0"):
            server_of([], address).__enter__()


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "beamline.example:9464", "[::]:9464"])
def test_an_address_that_others_reach_needs_a_choice(address: str) -> None:
    with pytest.raises(ValidationError, match="allow_remote: true"):
        HealthSettings(address=address)
    assert HealthSettings(address=address, allow_remote=True).port == 9464


@pytest.mark.parametrize("address", ["9464", "127.0.0.1", "127.0.0.1:99999", ":9464", "a b:1", "::1:80"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="expected HOST:PORT"):
        HealthSettings(address=address)


def test_clients_that_say_nothing_are_limited(capfd: pytest.CaptureFixture[str]) -> None:
    with server_of([]) as server, ExitStack() as opened:
        host, port = server.url.removeprefix("http://").split(":")
        silent = [opened.enter_context(socket.create_connection((host, int(port)), 10)) for _ in range(_MAX_CLIENTS)]
        further = opened.enter_context(socket.create_connection((host, int(port)), 10))
        assert further.recv(1) == b"", "turned away"
        for client in silent:
            client.close()
        while not (answer := _asked(host, int(port))).startswith(b"HTTP/1.0 200"):
            assert answer == b""
    assert capfd.readouterr().err == ""


def _asked(host: str, port: int) -> bytes:
    """Return the answer, which is empty while the threads of clients that went away still end."""
    with socket.create_connection((host, port), 10) as client:
        client.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        try:
            return client.recv(4096)
        except ConnectionResetError:
            return b""
