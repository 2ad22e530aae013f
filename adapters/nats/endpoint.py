"""A NATS server with JetStream: its address, security and the subjects of documents."""

import asyncio
import os
import ssl
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, FilePath, field_validator

from ...agent.types import InputError, Settings, get_logger
from ..errors import EndpointUnreachable

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js.client import JetStreamContext

log = get_logger()

SCHEMES = ("nats", "tls")
T = TypeVar("T")

CALL_S = 8.0
"""Longest wait for one answer of the server, s; shorter than the time after which a subscriber counts as blocked."""


class NATSEndpoint(Settings):
    """A JetStream stream of documents, in the format of bluesky-nats."""

    address: str
    """``nats://HOST:PORT/SUBJECT``, or ``tls://`` with TLS. Documents have the subjects ``SUBJECT.….NAME``; NAME is
    ``start``, ``event`` and so on. Without SUBJECT it is ``events.volatile``, as in bluesky-nats."""
    stream: str | None = None
    """Name of the stream; unset: the stream with this subject."""
    partitions: int = Field(default=1, ge=1, le=1024)
    """Number of partitions in which agents share the runs. If there are several, the subjects of partition K are
    ``SUBJECT.K.….NAME``, and one partition holds all documents of a run."""
    credentials: FilePath | None = None
    """Credentials file of a NATS user (``.creds``)."""
    user: str | None = None
    """Name of the user; the environment variable of ``password_from`` holds the password."""
    password_from: str = "NATS_PASSWORD"
    """Environment variable that holds the password of ``user``; without a user it holds a token."""
    ca_file: FilePath | None = None
    """Certificates that a ``tls://`` server may have; unset: those of the system."""
    connect_timeout_s: float = Field(default=10.0, ge=0)
    """Longest wait for the server's answer, s; 0 waits without limit."""

    @field_validator("address")
    @classmethod
    def _is_a_uri(cls, address: str) -> str:
        parts = urlsplit(address)
        if parts.scheme not in SCHEMES or not parts.hostname or parts.query:
            raise ValueError(f"found {address!r}, expected nats://HOST:PORT/SUBJECT")
        if parts.username or parts.password:
            raise ValueError("found an address with a password, expected user, and the password in NATS_PASSWORD")
        if any(c in parts.path for c in "*> "):
            raise ValueError(f"found {address!r}, expected a subject without wildcards")
        return address

    @property
    def server(self) -> str:
        """The address without the subject.

        >>> NATSEndpoint(address="nats://localhost/bmm.docs").server
        'nats://localhost:4222'
        """
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.hostname}:{parts.port or 4222}"

    @property
    def subject(self) -> str:
        """Common beginning of the documents' subjects.

        >>> NATSEndpoint(address="nats://localhost").subject
        'events.volatile'
        """
        return urlsplit(self.address).path.strip("/").replace("/", ".") or "events.volatile"

    def filter(self, partition: int) -> str:
        """Return the subjects of a partition, with NATS's wildcard.

        >>> NATSEndpoint(address="nats://localhost/xas", partitions=8).filter(3)
        'xas.3.>'
        """
        return f"{self.subject}.>" if self.partitions == 1 else f"{self.subject}.{partition}.>"


class Link:
    """A connection in an event loop on a separate thread. Any other thread may call it.

    Raises
    ------
    EndpointUnreachable
        The server does not answer within ``connect_timeout_s``, or refuses.
    InputError
        nats-py is not installed.
    """

    def __init__(self, endpoint: NATSEndpoint) -> None:
        try:
            import nats
        except ImportError:
            raise InputError(f"{endpoint.address}: NATS needs nats-py: pip install 'xas-agent[nats]'") from None
        self.endpoint = endpoint
        self.client: Client
        self.jetstream: JetStreamContext
        self.connected = False
        self._error: Exception | None = None
        """The latest error of the connection."""
        self.connections = 0
        """Number of times the connection was reopened."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._thread.start()
        try:
            self.client = self.call(nats.connect(**self._options()), endpoint.connect_timeout_s or None)
        except Exception as error:  # nats-py raises many types, and TimeoutError without a message
            self._end()
            cause = self._error or error
            reason = f"{type(cause).__name__}: {cause}".rstrip(": ")
            waited = f"no NATS server answered within {endpoint.connect_timeout_s:g} s ({reason})"
            raise EndpointUnreachable(endpoint.address, waited) from None
        self.jetstream = self.client.jetstream(timeout=CALL_S)
        self.connected = True

    def _options(self) -> dict[str, Any]:
        endpoint = self.endpoint
        secret = os.environ.get(endpoint.password_from)
        options: dict[str, Any] = {
            "servers": endpoint.server,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.5,
            "error_cb": self._failed,
            "disconnected_cb": self._lost,
            "reconnected_cb": self._back,
        }
        if endpoint.user is not None:
            options |= {"user": endpoint.user, "password": secret}
        elif secret:
            options["token"] = secret
        if endpoint.credentials is not None:
            options["user_credentials"] = str(endpoint.credentials)
        if endpoint.server.startswith("tls://"):
            options["tls"] = ssl.create_default_context(cafile=endpoint.ca_file)
        return options

    async def _failed(self, error: Exception) -> None:
        self._error = error
        log.debug("NATS", endpoint=self.endpoint.server, error=f"{type(error).__name__}: {error}")

    async def _lost(self) -> None:
        if self.connected:
            log.warning("connection lost", endpoint=self.endpoint.server)
        self.connected = False

    async def _back(self) -> None:
        self.connected = True
        self.connections += 1
        log.warning("connected again", endpoint=self.endpoint.server)

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = CALL_S) -> T:
        """Run a coroutine on the loop; return its result, or raise its exception or TimeoutError."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop without waiting for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def stream(self) -> str:
        """Return the name of the stream with the subject.

        Raises
        ------
        EndpointUnreachable
            The server has no such stream, or JetStream does not answer.
        """
        import nats.errors
        import nats.js.errors

        endpoint = self.endpoint
        try:
            if endpoint.stream is not None:
                await self.jetstream.stream_info(endpoint.stream)
                return endpoint.stream
            return await self.jetstream.find_stream_name_by_subject(endpoint.filter(0))
        except nats.js.errors.NotFoundError:
            wanted = f"stream {endpoint.stream}" if endpoint.stream else f"stream with subject {endpoint.filter(0)}"
            make = f"nats stream add {endpoint.stream or 'NAME'} --subjects '{endpoint.subject}.>' --defaults"
            raise EndpointUnreachable(endpoint.address, f"the server has no {wanted}; make it: {make}") from None
        except nats.js.errors.ServiceUnavailableError:
            message = "JetStream is not enabled on the server: start it with --jetstream"
            raise EndpointUnreachable(endpoint.address, message) from None
        except (nats.errors.Error, TimeoutError) as error:
            reason = f"{type(error).__name__}: {error}"
            message = f"JetStream did not answer ({reason}); may this user use its API ($JS.API.>)?"
            raise EndpointUnreachable(endpoint.address, message) from None

    def close(self) -> None:
        """Send pending messages, and close the connection."""
        self.connected = False
        try:
            self.call(self.client.drain())
        except Exception as error:
            log.debug("NATS connection not drained", endpoint=self.endpoint.server, error=str(error))
        self._end()

    async def _cancel(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self) -> None:
        with suppress(TimeoutError):
            self.call(self._cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_S)
        if not self._thread.is_alive():
            self._loop.close()
