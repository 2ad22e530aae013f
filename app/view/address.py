"""The address of a dashboard."""

import errno
import socket

from ...adapters.errors import EndpointUnreachable
from ...adapters.loopback import is_loopback
from ...agent.types import InputError

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8642
_PORTS = 50
"""Number of ports to try, from the default port on."""


def address_of(text: str, option: str) -> tuple[str, int | None]:
    """Return host and port of HOST:PORT, HOST or :PORT; the port is None if it is missing.

    >>> address_of("[::1]:8642", "--bind"), address_of("0.0.0.0", "--bind")
    (('::1', 8642), ('0.0.0.0', None))

    Raises
    ------
    InputError
            The text has none of these forms.
    """
    host, sign, port = text.rpartition(":")
    if not sign or text.endswith("]"):
        host, sign, port = text, "", ""
    if sign and not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise InputError(f"{option}: found {text!r}, expected HOST:PORT, such as {DEFAULT_HOST}:{DEFAULT_PORT}")
    return host.strip("[]") or DEFAULT_HOST, int(port) if port else None


def listen(host: str, port: int | None) -> socket.socket:
    """Return a listening socket; without a port, on the default port or the next free one.

    Raises
    ------
    EndpointUnreachable
        The address cannot be bound.
    """
    tried = [port] if port is not None else range(DEFAULT_PORT, DEFAULT_PORT + _PORTS)
    error: OSError | None = None
    for number in tried:
        try:
            family = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0][0]
            listening = socket.socket(family)
        except OSError as failure:
            error = failure
            continue
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, number))
            listening.listen(256)
        except OSError as failure:
            error = failure
            listening.close()
        else:
            return listening
    assert error is not None
    more = (
        ""
        if port is None or error.errno != errno.EADDRINUSE
        else "; name another port, or none for the next free one"
    )
    raise EndpointUnreachable(
        f"{host}:{DEFAULT_PORT if port is None else port}", f"cannot be bound: {error.strerror}{more}"
    )


def url_of(host: str, listening: socket.socket) -> str:
    """Return the URL with which a browser reaches a listening socket."""
    name = host
    if host in ("0.0.0.0", "::", ""):
        full = socket.getfqdn()
        name = socket.gethostname() if full.startswith("localhost") else full
    elif is_loopback(host):
        name = DEFAULT_HOST if listening.family == socket.AF_INET else host
    return f"http://{f'[{name}]' if ':' in name else name}:{listening.getsockname()[1]}/"


def told(url: str, token: str, local: bool) -> list[str]:
    """Return the lines that tell a person the address of the dashboard."""
    lines = [f"dashboard  {url}?token={token}"]
    return [*lines, f"           {url} shows it too, but takes no orders"] if local else lines
