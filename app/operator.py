"""Answers a person's commands to a running session, over a Unix socket that only its user can open.

A request and its answer are one line of JSON each; :func:`xas_agent.app.ask.ask` sends and receives them. The sockets
of all sessions of a user lie in one folder that nobody else may enter.
"""

import json
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..agent.decide import Standing
from ..agent.types import Decision, InputError, get_logger
from .agent import XASAgent
from .ask import Refused, identity_file, sockets_folder
from .line_server import line_server
from .output.audit import Audit

_log = get_logger()

_OUTCOME_S, _POLL_S = 8.0, 0.05
"""Longest wait for the outcome of an order, and the interval at which it is checked, s."""
_ORDERS = ("pause", "resume", "stop")
_QUESTIONS = ("session", "status", "pending")
"""Commands that change nothing; the audit omits them."""
_SHORTEST_ID = 4
_SINKS = {
    "Session._record": "tables and picture",
    "DocumentFile": "documents.jsonl",
    "Audit": "audit.jsonl",
    "ZMQSink": "ZMQ",
    "TiledSink": "Tiled",
}
"""Names of subscribers, in words."""


class OperatorServer:
    """Answers a person's commands for one session.

    Parameters
    ----------
    agent : XASAgent
    identity : callable
        Returns at once the ``source``, ``out`` folder and ``sample`` of the session.
    about : callable
        Returns the entries of ``status`` on the session, besides the agent's state.
    audit : Audit or None
        Stores every command.
    """

    def __init__(
        self,
        agent: XASAgent,
        identity: Callable[[], Mapping[str, str]],
        about: Callable[[], Mapping[str, Any]],
        audit: Audit | None,
    ) -> None:
        self._agent, self._identity, self._about, self._audit = agent, identity, about, audit
        self._pid = str(os.getpid())
        self._told: set[str] | None = None
        """Ids of the decisions last reported to a person; None before the first report."""
        self._server: socketserver.BaseServer | None = None
        self._path: Path | None = None

    def start(self) -> None:
        """Begin to listen; if the socket cannot be opened, the session continues without it."""
        if not hasattr(socket, "AF_UNIX"):
            return
        try:
            self._path = sockets_folder() / f"{self._pid}.sock"
            self._path.unlink(missing_ok=True)
            self._server = line_server(self._path, self._answer)
        except (OSError, Refused) as error:
            _log.warning("no commands can reach this session", detail=str(error))
            return
        threading.Thread(target=self._server.serve_forever, name="operator", daemon=True).start()
        try:
            identity_file(self._path).write_text(json.dumps(dict(self._identity()), default=str), encoding="utf-8")
        except OSError as error:
            _log.warning("while it is busy, this session is shown as ended", detail=str(error))

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            identity_file(self._path).unlink(missing_ok=True)

    def _answer(self, request: Mapping[str, Any], by: str) -> dict[str, Any]:
        command = str(request.get("command", ""))
        given = {k: v for k, v in request.items() if k not in ("command", "by")}
        try:
            answer = {"ok": True, **self._carry_out(command, request, by, given)}
        except (InputError, KeyError, TypeError, ValueError) as error:
            answer = {"ok": False, "error": str(error.args[0]) if error.args else str(error)}
        except TimeoutError:
            answer = {"ok": False, "error": "the agent did not answer in time"}
        if self._audit is not None and command not in _QUESTIONS:
            decision = answer.get("decision", {})
            done = f"{decision.get('status', 'done')} {decision.get('status_reason', '')}".strip()
            self._audit.command(by, command, given, done if answer["ok"] else str(answer["error"]))
        return {"session": {"pid": self._pid, **self._identity()}, **answer}

    def _carry_out(self, command: str, request: Mapping[str, Any], by: str, given: dict[str, Any]) -> dict[str, Any]:
        perform, why = self._agent.perform, str(request.get("why", ""))
        if command == "session":
            return {}
        if command == "status":
            return self._status()
        if command == "pending":
            return {"pending": self._tell(self._waiting())}
        if command in ("approve", "reject"):
            id = given["id"] = self._full_id(str(request.get("id", "")))
            try:
                if command == "approve":
                    return {"decision": _shown(perform(lambda pipeline: pipeline.decisions.approve(id, by)))}
                return {"decision": _shown(perform(lambda pipeline: pipeline.decisions.reject(id, by, why)))}
            except KeyError:
                raise InputError(f"{id[:8]} waits no longer") from None
        if command in _ORDERS:
            [told] = self._outcomes([perform(lambda pipeline: pipeline.decisions.order(command, by))])  # pyright: ignore
            return {"decision": told}
        if command == "halt":
            self._agent.halt(by, why)  # before the agent's thread handles the order
            stop, *of_robot = self._outcomes(perform(lambda pipeline: pipeline.decisions.halt(by, why)))
            return {"decision": stop, "robot": of_robot}
        if command == "release":
            return {"robot": self._outcomes(perform(lambda pipeline: pipeline.decisions.release(by)))}
        raise InputError(f"no command {command!r}")

    def _outcomes(self, ordered: list[Decision]) -> list[dict[str, Any]]:
        """Wait for the outcomes of orders, as long as a control may take."""
        until = time.monotonic() + _OUTCOME_S
        latest = ordered
        while not all(decision.final for decision in latest) and time.monotonic() < until:
            time.sleep(_POLL_S)
            latest = self._agent.perform(lambda pipeline: [pipeline.decisions.outcome(d.id) or d for d in ordered])
        return [_shown(decision) for decision in latest]

    def _waiting(self) -> list[dict[str, Any]]:
        """Return the waiting decisions, each with a prefix of its id that is long enough to identify it."""
        waiting = self._agent.perform(lambda pipeline: pipeline.decisions.unconfirmed)
        ids = {decision.id for decision, _ in waiting}
        return [{**_shown(d, left), "short_id": short_id(d.id, ids)} for d, left in waiting]

    def _tell(self, waiting: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self._told = {decision["id"] for decision in waiting}
        return waiting

    def _status(self) -> dict[str, Any]:
        state, paused = self._agent.state(), self._agent.paused
        waiting, halted = self._agent.perform(
            lambda pipeline: (pipeline.decisions.unconfirmed, pipeline.decisions.halted)
        )
        sinks = [asdict(subscriber) for subscriber in state.subscribers]
        return {
            **self._about(),
            "waiting_documents": state.documents,
            "document_age_s": state.document_age_s,
            "pending": len(waiting),
            "pending_ids": [decision.id for decision, _ in waiting],
            "sinks": [{**sink, "name": _SINKS.get(sink["name"], sink["name"])} for sink in sinks],
            "rules": [judged_last(standing) for standing in self._agent.standing],
            "halted": halted,
            "paused": "" if paused is None else f"by {paused.decision.rule}: {paused.decision.reason}",
            "paused_s": None if paused is None else time.monotonic() - paused.since,
        }

    def _full_id(self, beginning: str) -> str:
        """Return the id of the waiting decision that begins with a text.

        Raises
        ------
        InputError
            No decision or several match. If the text is empty: several wait, or the person who asked was shown other
            decisions than now wait, so that another one may be meant.
        """
        told, waiting = self._told, self._waiting()
        found = [d["id"] for d in waiting if d["id"].startswith(beginning)]
        unseen = not beginning and told is not None and not told.issuperset(found)
        if len(found) == 1 and not unseen:
            return found[0]
        lines = [f"\n  {d['short_id']}  {d['what']} by {d['rule']}: {d['reason']}" for d in self._tell(waiting)]
        listed = "".join(lines) or " none"
        if beginning or not waiting:
            raise InputError(f"{len(found)} decisions wait under {beginning!r}; waiting:{listed}")
        why = (
            "it came after you were told what waits" if unseen and len(found) == 1 else f"{len(found)} decisions wait"
        )
        raise InputError(f"{why}; name the one that you mean by its id:{listed}")


def short_id(id: str, ids: Collection[str]) -> str:
    """Return the shortest prefix of an id, of at least 4 characters, that no other id has."""
    lengths = range(_SHORTEST_ID, len(id))
    return next((id[:n] for n in lengths if sum(other.startswith(id[:n]) for other in ids) == 1), id)


def judged_last(standing: Standing) -> dict[str, Any]:
    """Return the value that a rule judged last, with the nearest bar; of a combination, the first one judged."""
    conditions = standing.conditions
    part = next((c for c in conditions if c.value is not None), conditions[0] if conditions else None)
    value, bars = (None, ()) if part is None else (part.value, part.bars)
    return {
        "name": standing.rule,
        "quantity": "" if part is None else part.what or part.quantity,
        "value": value,
        "level": None if value is None or not bars else min(bars, key=lambda bar: abs(bar - value)),
        "distance": None if part is None or value is None else -part.beyond,
        "unit": "" if part is None else part.unit,
        "armed": standing.followed and standing.decisions_left > 0,
        "decided": standing.decisions_left <= 0,
        "holds": standing.holds,
    }


def _shown(decision: Decision, remaining_s: float | None = None) -> dict[str, Any]:
    names = ("id", "rule", "action", "reason", "confidence", "status", "status_reason")
    shown = {name: getattr(decision, name) for name in names}
    shown |= {"sample": decision.scan.sample, "what": with_args(decision)}
    return shown if remaining_s is None else {**shown, "remaining_s": remaining_s}


def with_args(decision: Decision) -> str:
    """Return the action with its arguments, which a person must see before they approve them."""
    args = ", ".join(f"{name} {value}" for name, value in decision.args.items() if name != "run")
    return f"{decision.action} ({args})" if args else decision.action
