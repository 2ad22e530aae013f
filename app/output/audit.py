"""The audit of a session: every decision, every change of status, and every command of a person."""

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...adapters.files import AppendedFile
from ...agent.types import InputError, get_logger
from .kept import Alarm, cut_torn_line

_log = get_logger()

AUDIT = "audit.jsonl"
"""File of a session's folder."""
_KEPT = ("id", "rule", "action", "args", "reason", "evidence", "confidence", "status", "status_reason", "sample")


class Audit:
    """Appends lines of JSON, each with the SHA-256 of the line before; as a subscriber, it never raises.

    :func:`check_audit` finds lines that were changed or removed later.

    Parameters
    ----------
    path : Path
        File of the audit; an existing one is continued.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._alarm, self._lock = path, Alarm(path.parent), threading.Lock()
        self._file: AppendedFile | None = None
        self._before, self._known = "", set[str]()
        if path.exists():
            cut_torn_line(path)  # left by a process that was killed
            for line in path.read_bytes().splitlines():
                self._before = hashlib.sha256(line).hexdigest()
                with suppress(ValueError, AttributeError):  # not one of our lines; check_audit reports it
                    self._known.add(str(json.loads(line).get("uid", "")))

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Store a decision or a change of its status."""
        # Identified by their keys, since a continued session does not publish known Descriptors again.
        if name == "event" and doc["data"].keys() >= set(_KEPT) and doc["uid"] not in self._known:
            data = doc["data"]
            self._append({"uid": doc["uid"], "decided": doc["time"], **{k: data[k] for k in _KEPT}})

    def command(self, by: str, command: str, arguments: Mapping[str, Any], outcome: str) -> None:
        """Store a command of a person with its outcome, even if it was refused."""
        self._append({"command": command, "by": by, **arguments, "outcome": outcome})

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self._lock:
            line = json.dumps({**entry, "time": time.time(), "before": self._before}).encode()
            try:
                self._file = self._file or AppendedFile(self._path)
                self._restore()
                self._file.write(line + b"\n")
            except OSError as error:
                self._alarm.failed(self._path.name, error)
                return
            self._before = hashlib.sha256(line).hexdigest()
            self._alarm.written(self._path.name)

    def close(self) -> None:
        """Restore the file if somebody has removed it, and close it."""
        with self._lock, suppress(OSError):
            self._restore()
            if self._file is not None:
                self._file.close()
            self._file = None

    def _restore(self) -> None:
        if self._file is not None and self._file.restore():
            _log.error("file was removed, and is written again", file=str(self._path))


def check_audit(path: Path) -> int:
    """Check an audit; return its number of lines.

    Raises
    ------
    InputError
        A line was changed, inserted or removed after it was written.
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
