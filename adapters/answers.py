"""Identifies the subject of a published document: its run, and the frame that it answers."""

import threading
from collections import Counter
from typing import Any

_MAX_ANSWERS = 500_000
"""Number of answers to remember, of some 60 bytes each; those to the oldest runs are forgotten first."""


class Subjects:
    """Finds the run of each document, and the frame that an Event of the agent answers.

    The run is the one that keeps documents together; for the agent's own runs, it is the watched run.
    """

    def __init__(self) -> None:
        self._run_of: dict[str, str] = {}
        """Run that keeps documents together, by the uid of an open run."""
        self._streams: dict[str, tuple[str, str]] = {}
        """Run and stream, by the uid of a Descriptor or Resource."""
        self._open: Counter[str] = Counter()
        """Number of open runs, by the run that keeps them together."""

    def __call__(self, name: str, doc: dict[str, Any]) -> tuple[str, str]:
        """Return the run of a document (empty if unknown) and the answer's key (empty if it answers no frame)."""
        match name:
            case "start":
                run = str(doc["parent_uid"] if is_of_agent(doc) else doc["uid"])
                if str(doc["uid"]) not in self._run_of:  # repeated after a restart
                    self._run_of[str(doc["uid"])] = run
                    self._open[run] += 1
                return run, ""
            case "descriptor" | "resource" | "stream_resource":
                run = self._run_of.get(str(doc.get("run_start")), str(doc.get("run_start")))
                self._streams[str(doc["uid"])] = run, str(doc.get("name", ""))
                return run, ""
            case "stop":
                return self._stopped(str(doc["run_start"])), ""
        run, stream = self._streams.get(str(doc.get("descriptor", doc.get("resource"))), ("", ""))
        return run, answer_key(stream, doc["data"]) if name == "event" else ""

    def _stopped(self, uid: str) -> str:
        run = self._run_of.pop(uid, uid)
        self._open[run] -= 1
        if self._open[run] <= 0:
            del self._open[run]
            self._streams = {uid: known for uid, known in self._streams.items() if known[0] != run}
        return run


class Answers:
    """The answers that are known of each run, as hashes of their keys."""

    def __init__(self) -> None:
        self._answers: dict[str, set[int]] = {}
        self._count = 0

    def add(self, run: str, answer: str) -> bool:
        """Record an answer; return whether it is new."""
        answers, known = self._answers.setdefault(run, set()), hash(answer)
        if known in answers:
            return False
        answers.add(known)
        self._count += 1
        while self._count > _MAX_ANSWERS and len(self._answers) > 1:
            self.forget(next(iter(self._answers)))
        return True

    def forget(self, run: str) -> None:
        """Forget the answers to the frames of a run."""
        self._count -= len(self._answers.pop(run, ()))


class Confirmations:
    """Tracks which documents sent to a broker it has confirmed. Any thread may call the methods."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, None] = {}
        self.sent = 0
        """Number of documents sent."""

    def send(self) -> int:
        """Count a document; return its number."""
        with self._lock:
            self.sent += 1
            self._open[self.sent] = None
            return self.sent

    def confirm(self, number: int) -> None:
        """Record that a document is safe; one that the broker refused never is."""
        with self._lock:
            self._open.pop(number, None)

    @property
    def confirmed(self) -> int:
        """Number of leading documents that are safe."""
        with self._lock:
            return next(iter(self._open)) - 1 if self._open else self.sent


def is_of_agent(start: dict[str, Any]) -> bool:
    """Return whether a RunStart belongs to an agent's run that watches another run."""
    return bool(start.get("xas_agent")) and "parent_uid" in start


def answer_key(stream: str, data: dict[str, Any]) -> str:
    """Return the key of an Event's answer, equal for all agents; empty if the Event answers no frame.

    >>> answer_key("spectra", {"frame_uid": "3a6b"}), answer_key("decisions", {"frame_uid": "3a6b"})
    ('3a6b.spectra', '')
    """
    match stream:
        case "descriptors" | "spectra" | "measured":
            return f"{data['frame_uid']}.{stream}"
        case "quality" if data.get("frame_seq_num"):  # several other notes may be equal
            return f"{data['uid']}.{data['reason']}"
    return ""
