"""Checks whether the listener at an address speaks the protocol that a config expects there.

Each check sends the first message of a client of the protocol, so that it changes nothing and is not logged as an
attack. The mere fact that some process listens says little.
"""

import json
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, urlsplit

PORTS = {"http": 80, "https": 443, "tiled": 8000, "nats": 4222, "tls": 4222, "kafka": 9092, "smtp": 25}
_MOST_BYTES = 65_536
_ZMTP_SIGNATURE = b"\xff" + bytes(7) + b"\x01\x7f"
_KAFKA_CORRELATION = 0x7861
_KAFKA_VERSIONS = struct.pack(">hhih", 18, 0, _KAFKA_CORRELATION, -1)
"""A request for the API versions, which a broker answers before a client has authenticated."""


class Silent(Exception):  # noqa: N818  named after the event
    """Something listens but gives no answer in the protocol."""


def ask(address: str, timeout_s: float) -> str:
    """Return a description of who answers at an address, such as ``a NATS server``.

    Parameters
    ----------
    address : URL
        ``zmq``, ``tcp``, ``ipc``, ``nats``, ``tls``, ``kafka``, ``tiled``, ``http``, ``https`` or ``smtp``.
    timeout_s : float
        Longest wait for each step, s.

    Raises
    ------
    Silent
        A port is open, but the listener does not speak the protocol, whose name is the text of the exception.
    OSError
        Nothing listens, or no connection is established.
    """
    parts = urlsplit(address if "://" in address else f"zmq://{address}")
    if parts.scheme == "ipc":
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(timeout_s)
            link.connect(address.removeprefix("ipc://"))
            return _said(_zmq, link, "ZMQ")
    if parts.scheme in ("http", "https", "tiled"):
        return _http(parts, timeout_s)
    words, name = _WORDS.get(parts.scheme, (_zmq, "ZMQ"))
    place = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)
    with socket.create_connection(place, timeout_s) as link:
        return _said(words, link, name)


def _said(words: Callable[[socket.socket], str], link: socket.socket, name: str) -> str:
    try:
        answer = words(link)
    except (OSError, ValueError, struct.error):  # a closed connection, or silence
        answer = ""
    if not answer:
        raise Silent(name)
    return answer


def _receive(link: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count and (more := link.recv(count - len(found))):
        found += more
    return found


def _line(link: socket.socket) -> bytes:
    found = b""
    while b"\n" not in found and len(found) < _MOST_BYTES and (more := link.recv(4096)):
        found += more
    return found.partition(b"\n")[0]


def _zmq(link: socket.socket) -> str:
    """Exchange greetings; both sides send the same signature at once (ZMTP 3, https://rfc.zeromq.org/spec/23)."""
    link.sendall(_ZMTP_SIGNATURE)
    found = _receive(link, len(_ZMTP_SIGNATURE))
    return "a ZMQ socket" if len(found) == len(_ZMTP_SIGNATURE) and found[0] == 0xFF and found[-1] & 1 else ""


def _nats(link: socket.socket) -> str:
    line = _line(link)
    if not line.startswith(b"INFO "):
        return ""
    about = json.loads(line[5:])
    return f"a NATS server{'' if about.get('jetstream') else ' without JetStream'}"


def _kafka(link: socket.socket) -> str:
    link.sendall(struct.pack(">i", len(_KAFKA_VERSIONS)) + _KAFKA_VERSIONS)
    _, correlation, error = struct.unpack(">iih", _receive(link, 10))
    return "a Kafka broker" if (correlation, error) == (_KAFKA_CORRELATION, 0) else ""


def _smtp(link: socket.socket) -> str:
    return "a mail server" if _line(link).startswith(b"220") else ""


_WORDS = {
    "nats": (_nats, "NATS"),
    "tls": (_nats, "NATS"),
    "kafka": (_kafka, "Kafka without TLS"),
    "smtp": (_smtp, "SMTP"),
}


def _http(parts: SplitResult, timeout_s: float) -> str:
    """Ask a Tiled server what it is, and any other server for the head of its first page."""
    tiled = parts.scheme == "tiled" or "/api/v1" in parts.path
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    link = kind(parts.hostname or "", parts.port or PORTS[parts.scheme], timeout=timeout_s)
    try:
        link.connect()
    except ssl.SSLCertVerificationError:
        raise
    except ssl.SSLError:
        raise Silent("HTTPS") from None
    with closing(link):
        try:
            link.request("GET" if tiled else "HEAD", "/api/v1/" if tiled else "/")
            answer = link.getresponse()
            body = answer.read(_MOST_BYTES)
        except (HTTPException, OSError):
            raise Silent("HTTP") from None
    if not tiled:
        return "a web server"
    with suppress(ValueError, AttributeError):
        if "api_version" in json.loads(body) or answer.status in (401, 403):
            return "a Tiled server"
    raise Silent("Tiled")
