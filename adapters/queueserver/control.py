"""A control of a queue server: decisions become requests to its RE Manager."""

import threading
from collections.abc import Mapping
from typing import Any, Literal

from cachetools import FIFOCache
from pydantic import BaseModel, ConfigDict, ValidationError

from ...agent.types import URGENT_ACTIONS, Reply, get_logger, plain_message
from . import running
from .lease import FileLease, lease_of
from .link import ManagerLink, QueueServerSettings, Refused, Unanswered
from .queue import PlanHistory, QueueArgs, add, remove

log = get_logger()

_MAX_ANSWERED_IDS = 4096


class _PauseArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    option: Literal["deferred", "immediate"] = "deferred"


class QueueServerControl:
    """Acts on the plans of a bluesky-queueserver; any thread may call it.

    - ``pause`` pauses the running plan: at its next checkpoint, or at once with ``option: immediate``. It is
      acknowledged when the manager is paused.
    - ``resume`` continues a paused plan.
    - ``stop`` and ``abort`` pause the running plan at once and end it. They are acknowledged when it has ended. The
      manager then leaves the queue standing, and puts an aborted plan back to its front.
    - ``queue_plan`` adds ``plan: {name, args, kwargs, meta}`` to the queue at ``position`` (``back``, ``front``, or
      an index), and starts the queue with ``start: true``; or it removes the item with the uid ``remove``.

    Each action is carried out once, despite lost, late and repeated messages and restarts of the agent or the
    manager: a plan carries the decision's id in its metadata and is searched for before it is added, and the other
    actions follow the manager's state. A repeated request with an answered id receives the same answer.

    One agent acts on a manager at a time: the first one holds the lease until it ends, and without the lease all
    actions except ``stop`` and ``abort`` are ``rejected``.

    Parameters
    ----------
    settings : QueueServerSettings
    session : str
        Description of this agent, for messages to others.
    hold : bool
        Whether to take the lease now, if it is free; otherwise the first action takes it.
    """

    def __init__(self, settings: QueueServerSettings, session: str = "", *, hold: bool = False) -> None:
        self.settings = settings
        self._lease = FileLease(settings.lease or lease_of(settings.address), session)
        if hold and (refusal := self._lease.take()):
            log.warning("no control of the beamline", address=settings.address, detail=refusal)
        self._history = PlanHistory()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._answered: FIFOCache[str, Reply] = FIFOCache(_MAX_ANSWERED_IDS)

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Carry out ``action`` within ``timeout`` s, otherwise answer ``expired``; never raises.

        The reason states the manager's state. A refusal by the manager is ``rejected``, unless something was done
        before it; a failure with an unknown effect is ``expired``.
        """
        if self._closing.is_set():
            return Reply("rejected", "the control is closed")
        with self._lock:
            if (answered := self._answered.get(id)) is not None:
                return answered
        # Anybody with access may stop the experiment.
        refusal = "" if action in URGENT_ACTIONS else self._lease.take()
        reply = Reply("rejected", refusal) if refusal else self._carry_out(id, action, args, timeout)
        if reply.status != "expired":
            with self._lock:
                self._answered[id] = reply
        log.info("queue server", id=id, action=action, status=reply.status, reason=reply.reason)
        return reply

    def close(self) -> None:
        """Let requests in progress expire, reject further ones, and give the lease back."""
        self._closing.set()
        self._lease.release()

    def _carry_out(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        address = self.settings.address
        acted, state = False, None
        try:
            with ManagerLink(self.settings, timeout, self._closing) as link:
                try:
                    return self._act(link, id, action, args)
                finally:
                    acted, state = link.acted, link.state
        except Unanswered:
            if self._closing.is_set():
                return Reply("expired", "the control was closed")
            if state is None:
                return Reply("expired", f"{address} did not answer within {timeout:g} s")
            return Reply("expired", f"not confirmed within {timeout:g} s; when last asked, {state}")
        except Refused as refused:
            reason = f"{refused}; {state}" if state is not None else str(refused)
            return Reply("expired" if acted else "rejected", reason)
        except Exception as error:  # a Control never raises
            if not isinstance(error, ValidationError):
                log.exception("request to the queue server failed", address=address, id=id, action=action)
            return Reply("expired" if acted else "rejected", _cause(error))

    def _act(self, link: ManagerLink, id: str, action: str, args: Mapping[str, Any]) -> Reply:
        match action:
            case "pause":
                return running.pause(link, _PauseArgs.model_validate(args).option)
            case "resume":
                return running.resume(link)
            case "stop" | "abort":
                return running.end(link, action)
            case "queue_plan":
                wanted = QueueArgs.model_validate(args)
                if wanted.remove is not None:
                    return remove(link, wanted.remove)
                return add(link, self._history, id, wanted)
        return Reply("rejected", f"a queue server cannot {action!r}; queue_plan adds a plan that does")


def _cause(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    details = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in details["loc"])
    message = plain_message(details["msg"])
    return f"{key}: {message}" if key else message
