"""Which client opened which run, on an endpoint that tells its clients apart."""

from collections.abc import Mapping
from typing import Any

from cachetools import LRUCache

_MAX_UIDS = 10_000
"""Number of uids that are remembered of each client; the least recently used ones are dropped."""
_OPENS = ("start", "descriptor", "resource", "stream_resource")
"""Documents whose uid later documents name."""
_NAMES = ("run_start", "descriptor", "resource", "stream_resource")
"""Keys under which a document names the uid of an earlier one."""


class Owners:
    """Remembers which client first named a run, a descriptor or a resource; nobody else may add to it.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._uids: dict[str, LRUCache[str, None]] = {}
        """Uids of each client, bounded for each, so that none can make another's forgotten."""

    def admits(self, client: str, name: str, doc: Mapping[str, Any]) -> bool:
        """Whether no uid that a document has or names belongs to another client; these uids are then the client's."""
        uids = [doc.get("uid")] if name in _OPENS else []
        uids += doc if name == "bulk_events" else [doc.get(key) for key in _NAMES]
        datum = doc.get("datum_id")
        uids += datum if isinstance(datum, list) else [datum]
        uids = [uid for uid in uids if isinstance(uid, str)]
        if any(uid in owned for other, owned in self._uids.items() if other != client for uid in uids):
            return False
        own = self._uids.setdefault(client, LRUCache(_MAX_UIDS))
        for uid in uids:
            if uid in own:
                own[uid]  # is used
            else:
                own[uid] = None
        return True
