"""Reads documents of a NATS server."""

from typing import Any

from nats_server import Server
from shared_reader import Reader

from xas_agent.adapters.nats import NATSShared, NATSSource


def reading(endpoint: NATSShared) -> Reader:
    return Reader(NATSSource(endpoint))


def shared(server: Server, subject: str, **settings: Any) -> NATSShared:
    return NATSShared(address=f"{server.address}/{subject}", **{"begin": "all", "lease_s": 1, **settings})
