"""Records which client opened which run, on an endpoint that distinguishes its clients."""

from collections.abc import Mapping
from typing import Any

from cachetools import LRUCache

_MAX_UIDS = 10_000
"""Number of uids, and of Datums, to remember for each client; the least recently used ones are dropped."""
_OPENS = ("start", "descriptor", "resource", "stream_resource")
"""Documents whose uid later documents refer to."""
_NAMES = ("run_start", "descriptor", "resource", "stream_resource")
"""Keys under which a document refers to the uid of an earlier one."""


class Owners:
    """Remembers which client first named a run, a descriptor or a resource; no other client may add to it.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._uids: dict[tuple[str, bool], LRUCache[str, str]] = {}
        """Uids with the uid of their run, by client and by whether they belong to Datums.

        Each cache is limited, so that no client can displace another's uids, nor many Datums their own run.
        """

    def admits(self, client: str, name: str, doc: Mapping[str, Any]) -> bool:
        """Return whether no uid in a document belongs to another client; the uids then belong to this client."""
        uids = [doc.get("uid")] if name in _OPENS else []
        uids += doc if name == "bulk_events" else [doc.get(key) for key in _NAMES]
        uids = _texts(uids)
        datums = _texts([*_listed(doc.get("datum_id")), *_listed(doc.get("datum_ids"))])
        others = [owned for (other, _), owned in self._uids.items() if other != client]
        if any(uid in owned for owned in others for uid in (*uids, *datums)):
            return False
        own, own_datums = (
            self._uids.setdefault((client, of_datum), LRUCache(_MAX_UIDS)) for of_datum in (False, True)
        )
        run = next(iter(_texts([doc.get("run_start")])), "")
        for uid in uids:
            own[uid] = own.get(uid) or run
            own.get(own[uid])  # an Event refers only to its descriptor, but also uses the run
        own_datums.update(dict.fromkeys(datums, ""))
        return True


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _texts(values: list[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str)]
