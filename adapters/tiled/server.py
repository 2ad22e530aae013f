"""A Tiled server: its URI, its API key, and the client of a catalogue on it."""

import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from pydantic import field_validator

from ...agent.types import InputError, Settings
from ..errors import EndpointUnreachable

SCHEMES = ("tiled", "http", "https")
_PORTS = {"http": 80, "https": 443}


class Catalogue(Settings):
    """A container on a Tiled server."""

    uri: str
    """``tiled://HOST:PORT/PATH``, with the path within the server; or the http(s) URI of Tiled's client."""
    api_key_from: str = "TILED_API_KEY"
    """Environment variable that holds the API key; if it is not set, no key is sent."""

    @field_validator("uri")
    @classmethod
    def _is_a_uri(cls, uri: str) -> str:
        parts = urlsplit(uri)
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise ValueError("tiled://HOST:PORT/PATH, or an http or https URI")
        if parts.username or parts.password or "api_key" in parse_qs(parts.query):
            raise ValueError("a URI without a key or password; the environment variable TILED_API_KEY holds the key")
        return uri

    @property
    def http_uri(self) -> str:
        """URI in the form that Tiled's client expects.

        >>> Catalogue(uri="tiled://localhost:8000/bmm/raw").http_uri
        'http://localhost:8000/api/v1/metadata/bmm/raw'
        """
        parts = urlsplit(self.uri)
        if parts.scheme != "tiled":
            return self.uri
        return urlunsplit(("http", parts.netloc, "/api/v1/metadata/" + parts.path.strip("/"), "", ""))

    def require_client(self) -> None:
        """Import the packages that the catalogue needs.

        Raises
        ------
        InputError
            The extra is not installed.
        """
        try:
            import bluesky_tiled_plugins  # noqa: F401  registers the client of a run
            import tiled.client  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"{self.uri}: a Tiled catalogue needs {error.name}: pip install 'xas-agent[tiled]'"
            ) from None

    def probe(self, timeout_s: float = 1.0) -> None:
        """Open and close a connection, because Tiled's client would try for 45 s if nothing listens.

        Raises
        ------
        OSError
            Nothing listens.
        """
        parts = urlsplit(self.http_uri)
        socket.create_connection((str(parts.hostname), parts.port or _PORTS[parts.scheme]), timeout_s).close()

    def open(self) -> Any:
        """Return Tiled's client of the catalogue; httpx and Tiled raise many types of exception."""
        from tiled.client import from_uri

        key = os.environ.get(self.api_key_from) or None
        try:
            return from_uri(self.http_uri, api_key=key, show_progress=False)
        except RuntimeError as error:
            if key or "API key" not in str(error):
                raise
            reason = f"the server asks for an API key: set the environment variable {self.api_key_from}"
            raise PermissionError(reason) from None

    def wait(self, timeout_s: float, closing: threading.Event) -> None:
        """Wait until the server answers, up to ``timeout_s``, s; 0 waits without limit.

        Raises
        ------
        EndpointUnreachable
            It does not answer in time, or ``closing`` was set.
        """
        until = time.monotonic() + (timeout_s or float("inf"))
        while True:
            try:
                self.probe()
                return
            except OSError as error:
                if time.monotonic() > until:
                    waited = f"nothing answered within {timeout_s:g} s ({error})"
                    raise EndpointUnreachable(self.uri, waited) from None
            if closing.wait(0.1):
                raise EndpointUnreachable(self.uri, "closed before anything answered")


def one_line(error: Exception) -> str:
    """Return type and message of an error, cut to 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def start_of(run: Any) -> Mapping[str, Any]:
    """Return the RunStart of a run's client; empty if it has none."""
    return run.metadata.get("start") or {}


def stopped(run: Any) -> bool:
    """Return whether a run has its RunStop."""
    return bool(run.metadata.get("stop"))


def begun(start: Mapping[str, Any]) -> float:
    """Return the time of a RunStart, Unix seconds; 0 if it has none."""
    time = start.get("time")
    return float(time) if isinstance(time, int | float) else 0.0
