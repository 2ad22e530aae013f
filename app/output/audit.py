"""The audit of a session: every decision, every change of its status, and every command of a person."""

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...agent.types import InputError
from .kept import Alarm

AUDIT = "audit.jsonl"
"""File of a session's folder."""
_KEPT = ("id", "rule", "action", "args", "reason", "evidence", "confidence", "status", "status_reason", "sample")


class Audit:
    """Appends lines of JSON, each with the SHA-256 of the line before it; a subscriber that never raises.

    A line that was changed or removed later is found by :func:`check_audit`.

    Parameters
    ----------
    path : Path
        An existing file is continued.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._alarm, self._lock = path, Alarm(path.parent), threading.Lock()
        self._before, self._known = "", set[str]()
        if path.exists():
            for line in path.read_bytes().splitlines():
                self._before = hashlib.sha256(line).hexdigest()
                self._known.add(str(json.loads(line).get("uid", "")))
        self._streams: set[str] = set()
        """Uids of Descriptors of ``decisions``."""

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Keep a decision or a change of its status."""
        if name == "descriptor" and doc["name"] == "decisions":
            self._streams.add(doc["uid"])
        elif name == "event" and doc["descriptor"] in self._streams and doc["uid"] not in self._known:
            data = doc["data"]
            self._append({"uid": doc["uid"], "decided": doc["time"], **{k: data[k] for k in _KEPT}})

    def command(self, by: str, command: str, arguments: Mapping[str, Any], outcome: str) -> None:
        """Keep a command of a person with its outcome, also one that was refused."""
        self._append({"command": command, "by": by, **arguments, "outcome": outcome})

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self._lock:
            line = json.dumps({"time": time.time(), **entry, "before": self._before}).encode()
            try:
                with self._path.open("ab") as file:
                    file.write(line + b"\n")
            except OSError as error:
                self._alarm.failed(self._path.name, error)
                return
            self._before = hashlib.sha256(line).hexdigest()
            self._alarm.written(self._path.name)


def check_audit(path: Path) -> int:
    """Return the number of lines of an audit.

    Raises
    ------
    InputError
        A line was changed, inserted or removed since it was written.
    """
    before, number = "", 0
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            told = json.loads(line)["before"]
        except (ValueError, KeyError, TypeError):
            told = None
        if told != before:
            raise InputError(f"{path}: line {number} does not continue the line before it: the file was changed")
        before = hashlib.sha256(line).hexdigest()
    return number
