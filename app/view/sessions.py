"""The sessions that a dashboard shows, and the thread that reads their documents."""

import asyncio
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...agent.types import get_logger
from ..output.names import DOCUMENTS, SUMMARY
from .history import Change, History
from .link import Links
from .stream import EventStream

_log = get_logger()

_POLL_S = 0.2
"""Interval between checks of the files, s."""
_STATE_S = 1.0
"""Interval between requests for the state of a session while somebody watches, s."""
_NEW_FOLDERS_S = 2.0
"""Shortest time between two searches for new sessions in a folder of sessions, s."""
_ENDED = "the session has ended"
_KILLED = "the process of the session runs no more, and its last run has no end"
_SILENT = "the agent does not answer; what is shown of it may be old"

_AGES = ("paused_s", "last_document_age_s", "last_frame_age_s")
_NOTHING: dict[str, Any] = {
    "live": True,
    "answers": False,
    "connected": False,
    "paused": "",
    "paused_s": None,
    "halted": "",
    "pending": [],
    "last_document_age_s": None,
    "last_frame_age_s": None,
    "latency_ms": {},
    "queue": 0,
    "sources": [],
    "sinks": [],
    "rules": [],
}
"""State of a session that is known only to exist."""


@dataclass
class Shown:
    """One session on the dashboard."""

    id: str
    folder: Path
    history: History
    stream: EventStream = field(default_factory=EventStream)
    loaded: threading.Event = field(default_factory=threading.Event)
    """Set once the documents that the folder had at first are read."""
    state: dict[str, Any] = field(default_factory=dict)
    asked_at: float = float("-inf")
    """``time.monotonic()`` of the last request for the state."""
    asking: threading.Lock = field(default_factory=threading.Lock)
    """Held while the state is requested; other clients then wait for the answer."""


class Sessions:
    """The sessions of some folders. A folder without documents stands for its subfolders with documents.

    Parameters
    ----------
    folders : sequence of Path
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self.links = Links()
        self._shown: dict[Path, Shown] = {}
        self._looked_at = float("-inf")
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._follow, name="documents", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to read; events are published in ``loop``."""
        self._loop = loop
        self._thread.start()

    def close(self) -> None:
        """Disconnect the clients and end the reading."""
        self._ended.set()
        for shown in self._shown.values():
            shown.stream.close()

    def all(self) -> list[Shown]:
        """Return the sessions in the order of the folders; within a folder of sessions, by descending name."""
        with self._lock:
            if time.monotonic() - self._looked_at > _NEW_FOLDERS_S:
                self._looked_at = time.monotonic()
                found = _sessions_in(self._folders)
                for folder in found:
                    if folder not in self._shown:
                        self._shown[folder] = Shown(self._id_of(folder, found), folder, History(folder))
                # A folder that was empty and now contains folders of sessions is no longer shown itself.
                gone = {folder: one for folder, one in self._shown.items() if folder not in found}
                kept = {folder: one for folder, one in gone.items() if one.history.frames}
                self._shown = {folder: self._shown[folder] for folder in found} | kept
            return list(self._shown.values())

    def get(self, id: str) -> Shown | None:
        """Return a session by its id, with all its documents read; None if there is none."""
        shown = next((s for s in self.all() if s.id == id), None)
        if shown is not None:
            shown.loaded.wait()
        return shown

    def state(self, shown: Shown) -> dict[str, Any]:
        """Return the state of a session, requested at most once a second."""
        with shown.asking:
            if time.monotonic() - shown.asked_at >= 0.9 * _STATE_S:
                shown.state = self._ask(shown)
                shown.asked_at = time.monotonic()
            return shown.state

    def _ask(self, shown: Shown) -> dict[str, Any]:
        status, history = self.links.status(shown.folder), shown.history
        if status is not None and not status:
            return self._unanswered(shown)
        runs = status is not None
        state = {**_NOTHING, "live": runs, "answers": runs, "latency_ms": history.latency_ms()}
        if status is None:
            ended = _ENDED if history.ended else _KILLED if history.frames else "no session runs in this folder"
            return {**state, "rules": _judged_last(shown.folder, history.frames), "message": ended}
        names = {"last_document_age_s": "document_age_s", "queue": "waiting_documents", "pending": "pending_ids"}
        known = {name: status[names.get(name, name)] for name in state if names.get(name, name) in status}
        message = status["notification_failure"] if status.get("notifications_failed") else ""
        return {**state, **known, **({"message": f"notification failed: {message}"} if message else {})}

    def _unanswered(self, shown: Shown) -> dict[str, Any]:
        """Return the state of a running session that does not answer: its last answer, with increased ages."""
        before, elapsed_s = shown.state, time.monotonic() - shown.asked_at
        if not before.get("live"):
            before = {**_NOTHING, "latency_ms": shown.history.latency_ms()}
        aged = {name: None if before[name] is None else before[name] + elapsed_s for name in _AGES}
        return {**before, **aged, "answers": False, "message": _SILENT}

    async def ask_while_watched(self) -> None:
        """Publish the state of each session while it has clients."""
        while True:
            await asyncio.sleep(_STATE_S)
            for shown in [s for s in self._shown.values() if s.stream.watched]:
                before = shown.state
                state = await asyncio.to_thread(self.state, shown)
                if state != before:
                    shown.stream.publish("state", state)

    def _follow(self) -> None:
        """Read the documents that the sessions write."""
        while not self._ended.is_set():
            busy = False
            for shown in self.all():
                try:
                    changes = shown.history.update()
                except Exception:
                    _log.exception("documents not read", folder=str(shown.folder))
                    shown.loaded.set()
                    continue
                more = shown.history.behind
                busy = busy or more
                if shown.loaded.is_set() and changes:
                    self._publish(shown, changes)
                elif not more:
                    shown.loaded.set()
            if not busy:
                self._ended.wait(_POLL_S)

    def _publish(self, shown: Shown, changes: Iterable[Change]) -> None:
        def publish() -> None:
            for name, data in changes:
                shown.stream.publish(name, data)

        assert self._loop is not None
        self._loop.call_soon_threadsafe(publish)

    def _id_of(self, folder: Path, found: Iterable[Path]) -> str:
        """Return the id of a folder: its name and, if others have the same name, a mark of its path.

        The id does not depend on the order of folders: a page that outlives a dashboard must not address another
        session.
        """
        slug, path = _slug(folder), str(folder.resolve())
        others = {*found, *self._shown} - {folder}
        if all(_slug(other) != slug for other in others):
            return slug
        return f"{slug}-{hashlib.sha256(path.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"


def _slug(folder: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-.") or "session"


def _judged_last(folder: Path, frames: int) -> list[dict[str, Any]]:
    """Return the last judgements of a session's rules from its summary; empty if that does not cover all frames.

    A session writes its summary every few seconds; that of a killed session, or of one that still draws its picture,
    may be older than the last frame.
    """
    try:
        summary = json.loads((folder / SUMMARY).read_text())
        return summary["rules"] if summary["frames"] == frames else []
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _sessions_in(folders: Iterable[Path]) -> list[Path]:
    """Return the folders of sessions: the named ones, or the subfolders with documents of one without documents."""
    found: list[Path] = []
    for folder in folders:
        inside = []
        if not (folder / DOCUMENTS).is_file() and folder.is_dir():
            inside = sorted((path.parent for path in folder.glob(f"*/{DOCUMENTS}")), reverse=True)
        found += inside or [folder]
    return found
