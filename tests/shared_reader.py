"""Reads a source that agents share."""

import threading
from typing import Any


class Reader:
    """Reads a source of NATS or Kafka on a thread, and acknowledges nothing."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.documents: list[tuple[str, dict[str, Any]]] = []
        self.ages: list[float] = []
        self.positions: dict[str, Any] = {}
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
