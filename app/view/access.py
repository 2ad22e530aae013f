"""Decides who may read and act: the token, the server's names, and what a browser may load.

On the machine itself, only acting needs the token. On any other address everything needs it.
"""

import hmac
import ipaddress
import os
import re
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ...adapters.loopback import is_loopback
from ...agent.types import InputError, get_logger

_log = get_logger()

TOKEN_FILE = ".dashboard-token"
"""File of a session's folder with the token, mode 0600."""
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send the form with Origin null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every answer."""
FREE = ("/token", "/static/token.css")
"""Paths that need no token: the page that asks for it, and its style."""
_LEAST_TOKEN = 16
"""Smallest length of a token in a file."""


def token_of(file: Path | None, folder: Path) -> str:
    """Return the token: that of a file, or one stored in a folder so that it survives a restart.

    Raises
    ------
    InputError
        The file cannot be read, other users may read it, or its token is too short.
    """
    if file is None:
        file = folder / TOKEN_FILE
        with suppress(FileNotFoundError):
            return _read_token(file)
        token = secrets.token_urlsafe(24)
        try:
            _keep(file, token)
        except FileExistsError:  # another dashboard created it just now
            return _read_token(file)
        except OSError as error:
            _log.warning(
                "token of the dashboard not kept: it ends with this process", file=str(file), error=str(error)
            )
        return token
    try:
        return _read_token(file)
    except FileNotFoundError:
        raise InputError(f"{file}: found no such file, expected one with the dashboard's token, mode 0600") from None


def _keep(file: Path, token: str) -> None:
    """Write a token to a new file; if the disk is full, leave none, since the next start would refuse it."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as new:
            new.write(token + "\n")
    except OSError:
        file.unlink(missing_ok=True)
        raise


def _read_token(file: Path) -> str:
    try:
        if os.name == "posix" and file.stat().st_mode & 0o077:
            raise InputError(f"{file}: others may read it; expected mode 0600: chmod 600 {file}")
        token = file.read_text(encoding="utf-8").strip()
    except PermissionError as error:
        raise InputError(f"{file}: {error.strerror}, expected a file with the dashboard's token") from None
    if len(token) < _LEAST_TOKEN or not re.fullmatch(r"[\w\-.~]+", token, re.ASCII):
        raise InputError(
            f"{file}: found {len(token)} characters, expected a token of at least {_LEAST_TOKEN} letters and digits"
        )
    return token


@dataclass(frozen=True)
class Access:
    """The access rules of one address.

    Parameters
    ----------
    host : address on which the server listens
    token : secret token
    """

    host: str
    token: str = field(repr=False)
    cookie: str = "xas_agent_dashboard"
    """Name of the cookie; it contains the port, since a browser sends a host's cookies to all its ports."""

    @property
    def local(self) -> bool:
        """Whether only this machine reaches the server, so that reading needs no token."""
        return is_loopback(self.host)

    def knows_host(self, header: str) -> bool:
        """Return whether the ``Host`` header of a request names this server.

        A page of another site whose name was bound to this address (DNS rebinding) sends another name. The port is
        not compared, since ssh -L may use another one.
        """
        host = _split(f"//{header}").hostname or ""
        if self.local:
            return is_loopback(host)
        with suppress(ValueError):
            ipaddress.ip_address(host)
            return True
        own = {self.host.lower(), "localhost", socket.gethostname().lower(), socket.getfqdn().lower()}
        return host.lower() in own | {name.partition(".")[0] for name in own}

    def has_token(self, headers: "dict[str, str]") -> bool:
        """Return whether a request carries the token, in ``Authorization: Bearer`` or in the cookie."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.fits(given.strip())
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return False
        return morsel is not None and self.fits(morsel.value)

    def fits(self, given: str) -> bool:
        """Return whether a token is correct, in a time that does not reveal how much of it matches."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def refusal(self, method: str, path: str, headers: "dict[str, str]") -> tuple[int, str] | None:
        """Return status and reason of a refused request; None if it is allowed."""
        host = headers.get("host", "")
        if not self.knows_host(host):
            return 421, f"found Host {host!r}, expected a name of this server"
        acts = method not in ("GET", "HEAD")
        if acts and not _same_origin(headers, host):
            return 403, "a page of another site may not send this"
        if path in FREE:
            return None
        if (acts or not self.local) and not self.has_token(headers):
            return 401, "the token is missing or wrong: open the address that the dashboard printed, with its token"
        return None


def _same_origin(headers: "dict[str, str]", host: str) -> bool:
    """Return whether a request comes from a page of this server, or from no page but with the token in its header."""
    origin = headers.get("origin")
    if origin is not None:
        found = _split(origin)
        return found.scheme in ("http", "https") and found.netloc.lower() == host.lower()
    site = headers.get("sec-fetch-site")
    return "authorization" in headers or site in ("same-origin", "none") if "cookie" in headers else site is None


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # for example because of an unclosed bracket
        return urlsplit("")


class Guard:
    """ASGI middleware that refuses requests that :class:`Access` does not allow, and adds the headers.

    Parameters
    ----------
    app : ASGI application
    access : Access
    refused : callable
        Returns the ASGI response to a refused request.
    """

    def __init__(self, app: Any, access: Access, refused: Any) -> None:
        self._app, self._access, self._refused = app, access, refused

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                more = [(n.lower().encode(), v.encode()) for n, v in HEADERS.items()]
                more += [(b"cache-control", b"no-store")]
                message["headers"] = [*message["headers"], *(m for m in more if m[0] not in given)]
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._access.refusal(scope["method"], scope["path"], headers)
        app = self._app if refusal is None else self._refused(scope["path"], *refusal)
        await app(scope, receive, guarded)
