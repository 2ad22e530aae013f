"""An HTTP endpoint that reports the agent's health: ``/healthz``, ``/readyz`` and ``/metrics``."""

import errno
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from ..agent.types import InputError, get_logger
from .errors import EndpointUnreachable
from .health_settings import HealthSettings

if TYPE_CHECKING:
    from prometheus_client import Metric

_log = get_logger()

_TIMEOUT_S = 5.0
"""Longest wait for further bytes from a client, s."""
_MAX_CLIENTS = 8
"""Number of clients served at once; others are turned away, so that strangers cannot occupy all threads."""


class Collector(Protocol):
    """Supplies the metrics at the time of the call."""

    def collect(self) -> "Iterable[Metric]": ...


Check = Callable[[], list[str]]
"""Returns the present problems, in words; empty if there are none. Called from any thread."""


class HealthServer:
    """Serves checks and metrics on separate threads, until ``close``.

    A check answers 200, or 503 with the problems.

    Parameters
    ----------
    settings : HealthSettings
    checks : mapping
        Checks by path.
    metrics : Collector
        Called at each request of ``/metrics``, from any thread.

    Raises
    ------
    EndpointUnreachable
        The address cannot be bound.
    InputError
        The extra is not installed.
    """

    def __init__(self, settings: HealthSettings, checks: Mapping[str, Check], metrics: Collector) -> None:
        try:
            from prometheus_client import CollectorRegistry, make_wsgi_app
        except ImportError:
            raise InputError("health: needs prometheus_client: pip install 'xas-agent[health]'") from None
        registry = CollectorRegistry()
        registry.register(metrics)  # pyright: ignore[reportArgumentType]  any object with collect() will do
        self._checks, self._metrics = checks, make_wsgi_app(registry)
        try:
            self._server = _Server(settings.host, settings.port, self._answer)
        except OSError as error:
            reason = f"cannot be bound: {error.strerror or error}"
            if error.errno == errno.EADDRINUSE:
                reason = f"port {settings.port} is in use: name another one with --health, or 0 for a free one"
            raise EndpointUnreachable(settings.address, reason) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"http://{host}:{self._server.server_port}"
        """Address without a path."""
        _log.info("health", endpoint=self.url, paths=" ".join([*checks, "/metrics"]))

    def close(self) -> None:
        """Close the endpoint without waiting for requests in progress."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _plain(start_response, "405 Method Not Allowed", "GET or HEAD")
        if path == "/metrics":
            return self._metrics(environ, start_response)
        if path not in self._checks:
            return _plain(start_response, "404 Not Found", " ".join([*self._checks, "/metrics"]))
        wrong = self._checks[path]()
        return _plain(start_response, "503 Service Unavailable" if wrong else "200 OK", "\n".join(wrong) or "ok")


def _plain(start_response: Any, status: str, text: str) -> list[bytes]:
    body = f"{text}\n".encode()
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, app: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._free = threading.BoundedSemaphore(_MAX_CLIENTS)
        super().__init__((host, port), _Handler)
        self.set_app(app)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer would query the name service, which may take seconds
        self.server_name, self.server_port = self.server_address[:2]  # pyright: ignore[reportAttributeAccessIssue]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: a client that disconnects in the middle of a request concerns nobody else."""


class _Handler(WSGIRequestHandler):
    timeout = _TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Do not log requests, since Prometheus sends one every few seconds."""
