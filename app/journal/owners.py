"""Finds the run and stream that a document belongs to."""

from dataclasses import dataclass, field
from typing import Any

from cachetools import FIFOCache

_MAX_OWNERS = 20_000


@dataclass
class Owners:
    """Remembers the runs of Descriptors and Resources that other documents refer to."""

    _known: FIFOCache[str, tuple[str, str]] = field(default_factory=lambda: FIFOCache(_MAX_OWNERS))

    def __call__(self, name: str, doc: dict[str, Any]) -> tuple[str, str]:
        """Return the uid of a document's run and the name of its stream; empty if unknown."""
        try:
            match name:
                case "start":
                    return str(doc["uid"]), ""
                case "descriptor":
                    owner = str(doc["run_start"]), str(doc.get("name", "primary"))
                    self._known[str(doc["uid"])] = owner
                    return owner
                case "stop" | "stream_resource":
                    return str(doc["run_start"]), ""
                case "resource":
                    owner = str(doc.get("run_start", "")), ""
                    self._known[str(doc["uid"])] = owner
                    return owner
                case "event" | "event_page" | "stream_datum":
                    return self._known.get(str(doc["descriptor"]), ("", ""))
                case "datum" | "datum_page":
                    return self._known.get(str(doc["resource"]), ("", ""))
        except (KeyError, TypeError, AttributeError):
            pass  # a malformed document; the book reports it
        return "", ""
