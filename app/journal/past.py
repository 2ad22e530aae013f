"""Reads from a journal the state of the runs that are not over."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any

from ...agent.progress import Past
from ...agent.publish import PastRun, decision_of
from ...agent.types import Decision, Memory

Documents = Callable[..., Iterator[tuple[Any, ...]]]
"""Reads the rows of a query, and skips damaged ones."""


def read_past(documents: Documents, file: sqlite3.Connection) -> Past:
    """Read the states, the agent's open runs with their decisions, and the frames that have an outcome."""
    memory: Memory = {}
    for key, state in documents("SELECT key, crc32, doc FROM memory ORDER BY input"):
        memory[tuple(json.loads(key))] = state
    counted = {key[2]: state for key, state in memory.items() if key[1] == "run"}
    closed = {run for (run,) in file.execute("SELECT run FROM published WHERE name = 'stop'")}
    starts: dict[str, dict[str, Any]] = {}
    descriptors: dict[str, list[dict[str, Any]]] = {}
    for name, run, doc in documents(
        "SELECT name, run, crc32, doc FROM published WHERE name IN ('start', 'descriptor') ORDER BY id"
    ):
        if run not in closed and name == "start":
            starts[run] = doc
        elif run not in closed:
            descriptors.setdefault(run, []).append(doc)
    decisions: dict[str, tuple[Decision, float]] = {}
    events = "SELECT run, at, crc32, doc FROM published WHERE stream = 'decisions' AND name = 'event' ORDER BY id"
    for run, at, doc in documents(events):
        if run not in starts:
            continue
        decision = decision_of(doc, starts[run]["parent_uid"])
        _, made = decisions.get(decision.id, (None, at))
        # A decision that a person approved late is not too old to be sent.
        decisions[decision.id] = decision, at if decision.status == "approved" else made
    runs = []
    for uid, start in starts.items():
        counts, latest = counted.get(uid, ({}, start["time"]))
        runs.append(PastRun(start, descriptors.get(uid, []), counts, latest))
    now = time.time()
    answered = (json.loads(frame) for (frame,) in file.execute("SELECT frame FROM outcomes"))
    made_ago = [(decision, max(0.0, now - made)) for decision, made in decisions.values()]
    return Past(runs, answered, made_ago, memory)
