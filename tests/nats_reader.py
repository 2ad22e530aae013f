"""Reads a shared source of NATS on a thread."""

import threading
from typing import Any

from nats_server import Server

from xas_agent.adapters.nats import NATSShared, NATSSource


class Reader:
    """Reads a source on a thread, and acknowledges nothing."""

    def __init__(self, endpoint: NATSShared) -> None:
        self.source = NATSSource(endpoint)
        self.documents: list[tuple[str, dict[str, Any]]] = []
        self.ages: list[float] = []
        self.positions: dict[str, int] = {}
        self.source.connect()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for name, doc in self.source:
            self.documents.append((name, doc))
            self.ages.append(self.source.age_s)
            self.positions |= self.source.position

    def close(self) -> None:
        self.source.close()
        self._thread.join(10)
        self.source.release()

    def uids(self) -> list[str]:
        return [doc["uid"] for _, doc in self.documents]

    def acknowledge(self, *ended: str) -> None:
        self.source.acknowledge(self.positions, ended)


def shared(server: Server, subject: str, **settings: Any) -> NATSShared:
    return NATSShared(address=f"{server.address}/{subject}", **{"begin": "all", "lease_s": 1, **settings})
