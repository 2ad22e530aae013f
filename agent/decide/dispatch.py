"""Takes decisions to a control, within what the settings allow, and follows their status."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from pydantic import Field

from ..types import Action, Control, Decision, Reply, Settings, Status, get_logger

_log = get_logger()


class ControlSettings(Settings):
    """What the agent may do to the experiment; nothing until it is enabled and the actions are named."""

    enabled: bool = False
    """Whether decisions are sent; otherwise they stay advice, with status ``proposed``."""
    allow: tuple[Action, ...] = ()
    """Actions that may be sent; any other is ``rejected``. ``notify`` changes nothing and needs no permission."""
    timeout_s: float = Field(default=5.0, gt=0)
    """Time that the control has to answer, s; after it the decision is ``expired``."""


class Dispatcher:
    """Sends decisions to a control from a thread of its own: who submits is never blocked.

    ``on_status`` gets a copy of the decision at each change of its status (proposed → sent → acknowledged |
    rejected | expired), in order, on that thread. Requests go out one at a time, as they were submitted.

    Args:
        settings: the gates.
        control: None where there is nothing to control: what would be sent is rejected.
        on_status: must not block for long; what it raises is logged.
    """

    def __init__(
        self, settings: ControlSettings, control: Control | None, on_status: Callable[[Decision], None]
    ) -> None:
        self._settings = settings
        self._control = control
        self._on_status = on_status
        self._queue: queue.SimpleQueue[Decision | None] = queue.SimpleQueue()
        self._asked: Decision | None = None
        """Sent, and neither answered nor given up."""
        self._pending = 0
        self._settled = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="controlling", daemon=True)
        self._thread.start()

    def submit(self, decision: Decision) -> Decision:
        """Take a proposed decision; returns it as it is to be published first. Any thread; does not block.

        That is the decision itself, still ``proposed`` with its reason where controls are off, or
        ``expired`` after ``close``; everything later comes through ``on_status``.
        """
        with self._settled:
            if self._closing:
                return replace(decision, status="expired", status_reason="the agent is closing")
            if decision.action != "notify" and not self._settings.enabled:
                return replace(decision, status_reason="controls are off: advice only")
            self._pending += 1
            self._queue.put(decision)
        return decision

    def drain(self, timeout: float) -> bool:
        """Wait until every submitted decision is settled; False if that takes more than ``timeout`` s."""
        with self._settled:
            return self._settled.wait_for(lambda: self._pending == 0, timeout)

    def close(self, timeout: float | None = None) -> None:
        """Finish the request under way, expire those waiting, end the thread; a second call does nothing.

        A request that the control has not answered by then is ``expired``, whatever the control answers later.

        Args:
            timeout: s to wait for the thread, by default the control's own and a second.
        """
        with self._settled:
            if not self._closing:
                self._closing = True
                self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(self._settings.timeout_s + 1 if timeout is None else timeout)
            if (asked := self._answered()) is not None:
                self._tell(asked, "expired", "the agent closed before the answer, outcome unknown")

    def _work(self) -> None:
        while (decision := self._queue.get()) is not None:
            try:
                self._settle(decision)
            finally:
                with self._settled:
                    self._pending -= 1
                    self._settled.notify_all()

    def _settle(self, decision: Decision) -> None:
        if self._closing:
            self._tell(decision, "expired", "the agent closed before it was sent")
        elif decision.action == "notify":
            self._tell(decision, "acknowledged", "")
        elif decision.action not in self._settings.allow:
            self._tell(decision, "rejected", f"{decision.action} is not among the allowed actions")
        elif self._control is None:
            self._tell(decision, "rejected", "no control is connected")
        else:
            self._tell(decision, "sent", "")
            self._asked = decision
            reply = self._request(self._control, decision)
            if self._answered() is not None:
                self._tell(decision, reply.status, reply.reason)

    def _answered(self) -> Decision | None:
        """Take the decision whose outcome is open, so that its last status is given once."""
        with self._settled:
            asked, self._asked = self._asked, None
        return asked

    def _request(self, control: Control, decision: Decision) -> Reply:
        begun = time.monotonic()
        try:
            reply = control.request(decision.id, decision.action, decision.args, timeout=self._settings.timeout_s)
            if not isinstance(reply, Reply):
                raise TypeError(f"found {reply!r}, expected a Reply")
        except Exception as error:
            reply = Reply("expired", f"the control failed, outcome unknown: {type(error).__name__}: {error}")
        _log.info(
            "decision answered",
            rule=decision.rule,
            action=decision.action,
            status=reply.status,
            reason=reply.reason,
            took_s=round(time.monotonic() - begun, 3),
        )
        return reply

    def _tell(self, decision: Decision, status: Status, reason: str) -> None:
        try:
            self._on_status(replace(decision, status=status, status_reason=reason))
        except Exception:
            _log.exception("status callback failed", rule=decision.rule, status=status)
