"""Identifies the two sides of a control: by CURVE keys, the user of a Unix socket, or a shared secret."""

import hashlib
import hmac
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, FilePath

from ...agent.types import InputError
from ..codecs import to_json
from .socket import Endpoint

SECRET_VARIABLE = "XAS_AGENT_CONTROL_SECRET"
"""Environment variable with the shared secret, if no file is named."""
VALID_FOR_S = 60.0
"""Age at which a request is refused, s; until then a server remembers its answer."""
_MIN_LENGTH = 16


class ControlEndpoint(Endpoint):
    """A ZMQ address for control requests, which are sent to it or received at it."""

    secret_file: FilePath | None = None
    """File with the secret that both sides share; only its owner may read it. For a loopback address without CURVE.
    Unset: the environment variable ``XAS_AGENT_CONTROL_SECRET``."""

    heartbeat_s: float | None = Field(default=None, gt=0)
    """Interval of the agent's heartbeats to the server, s; the server then reserves the beamline for the agent and
    notices its silence. Unset: no heartbeats. The server must know heartbeats, as xas-agent's does."""

    def shared_secret(self) -> bytes | None:
        """Return the secret that proves a request; None if CURVE or a Unix socket identifies the other side.

        Raises
        ------
        InputError
            Nothing identifies the other side, or the secret cannot be read.
        """
        if self.is_unix or (self.curve_secret_key and (not self.bind or self.curve_client_keys)):
            if self.secret_file is not None:
                raise InputError(f"{self.address}: secret_file has no effect beside CURVE or a Unix socket")
            return None
        keys = "curve_secret_key and " + ("curve_client_keys" if self.bind else "curve_server_key")
        if not self.local:
            raise InputError(
                f"{self.address}: other machines reach this control, and found no CURVE keys of its clients; "
                f"set {keys}, or use ipc:///PATH or 127.0.0.1"
            )
        if secret := self._secret():
            return secret
        raise InputError(
            f"{self.address}: every process of this machine reaches this control; set secret_file or the variable "
            f"{SECRET_VARIABLE} to a shared secret, or {keys}, or use ipc:///PATH"
        )

    def _secret(self) -> bytes:
        if self.secret_file is None:
            secret, origin = os.environ.get(SECRET_VARIABLE, "").strip().encode(), SECRET_VARIABLE
        else:
            secret, origin = _read_private(self.secret_file), str(self.secret_file)
        if (secret or self.secret_file) and len(secret) < _MIN_LENGTH:
            raise InputError(f"{origin}: found {len(secret)} characters, expected a secret of at least {_MIN_LENGTH}")
        return secret


def _read_private(path: Path) -> bytes:
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise InputError(f"{path}: others may read this secret; chmod 600 it, and replace it if they may have")
        return path.read_bytes().strip()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def signed(content: Mapping[str, Any], secret: bytes | None) -> dict[str, Any]:
    """Return a message with its ``auth``: the HMAC-SHA256, in hex, of the other fields; unchanged without a secret.

    The HMAC is computed over these fields as JSON with sorted keys and without spaces, in UTF-8.

    >>> signed({"id": "a"}, b"secret")["auth"][:8]
    '2d51aa3c'
    """
    message = json.loads(to_json(content))
    return message if secret is None else {**message, "auth": _hmac(message, secret)}


def is_authentic(message: Any, secret: bytes) -> bool:
    """Return whether the ``auth`` of a message proves the secret."""
    if not isinstance(message, dict) or not isinstance(message.get("auth"), str):
        return False
    rest = {key: value for key, value in message.items() if key != "auth"}
    try:
        return hmac.compare_digest(message["auth"].encode(), _hmac(rest, secret).encode())
    except (ValueError, RecursionError):  # a text that is not Unicode, or JSON that is nested too deeply
        return False


def is_recent(message: Mapping[str, Any], since: float) -> bool:
    """Return whether a message was sent after ``since`` and within the last ``VALID_FOR_S``; both are Unix times."""
    sent = message.get("time")
    if not isinstance(sent, int | float) or isinstance(sent, bool):
        return False
    return sent >= since and abs(time.time() - sent) <= VALID_FOR_S


def _hmac(content: Mapping[str, Any], secret: bytes) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hmac.new(secret, text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()
