"""Sends decisions to a control, within the limits of the settings, and follows their status."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast, get_args

from pydantic import Field, field_validator

from ..types import (
    ROBOT_ACTIONS,
    ROBOT_ORDERS,
    URGENT_ACTIONS,
    Action,
    ConfigError,
    Control,
    Decision,
    Reply,
    RobotOrder,
    Settings,
    SetValue,
    Status,
    get_logger,
    validate_settings,
)
from .controls import takes

_log = get_logger()


Authority = Literal["advise", "confirm", "act"]
OPERATOR = "operator"
"""Name that stands for the rule in decisions that a person made."""


class ActionLimit(Settings):
    """How often the agent may request one action, counted over all rules."""

    per_run: int | None = Field(default=None, ge=0)
    """Largest number of decisions in a watched run; unset: no limit."""
    per_hour: int | None = Field(default=None, ge=0)
    """Largest number of decisions within one hour by the agent's clock; unset: no limit."""


class ControlSettings(Settings):
    """Actions that the agent may request of the experiment. By default there are none."""

    enabled: bool = False
    """Whether decisions are sent; otherwise they remain advice, with status ``proposed``."""
    allow: tuple[Action, ...] = ()
    """Actions that may be sent; any other is ``rejected``. ``notify`` changes nothing and needs no permission."""
    authority: Authority = "act"
    """How far the agent may act: ``advise`` only publishes decisions; ``confirm`` sends a decision after a person has
    approved it (``xas-agent approve``); ``act`` sends it at once. ``notify`` always acts."""
    authority_of: dict[Action, Authority] = Field(default_factory=dict)
    """Authority for single actions; it replaces ``authority``."""
    confirm_within_s: float = Field(default=600.0, gt=0)
    """Time that a person has to approve a decision, s; after it the decision is ``expired``."""
    paused_replay_s: float = Field(default=60.0, gt=0)
    """Time that a replay or a simulated beamline may stay paused by a rule, s; then the agent stops it."""
    settable: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """Signals that ``set`` may change, with the smallest and the largest value of each; any other is ``rejected``."""
    limits: dict[Action, ActionLimit] = Field(default_factory=dict)
    """How often single actions may be requested; a decision beyond its limit is ``rejected``."""
    timeout_s: float = Field(default=5.0, gt=0)
    """Time that the control has to answer, s; after it the decision is ``expired``. A robot must accept an action
    within this time."""
    max_age_s: float = Field(default=30.0, gt=0)
    """Largest time between the arrival of a frame's last datum and its estimate, s. The agent publishes an older
    frame, but no rule judges it, since decisions concern the present."""

    @field_validator("settable")
    @classmethod
    def _ranges(cls, settable: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for signal, (least, most) in settable.items():
            if not least <= most:
                raise ValueError(f"found {least:g} … {most:g} for {signal!r}, expected the smallest value first")
        return settable

    def refusal_of_value(self, args: Mapping[str, Any]) -> str:
        """Return why ``set`` may not have these arguments; empty if they are allowed."""
        try:
            wanted = validate_settings(dict(args), SetValue, "args of set")
        except ConfigError as error:
            return str(error)
        if (allowed := self.settable.get(wanted.signal)) is None:
            return f"{wanted.signal} is not among the signals in control.settable"
        least, most = allowed
        if least <= wanted.value <= most:
            return ""
        return f"{wanted.value:g} for {wanted.signal} is outside {least:g} … {most:g}, as in control.settable"

    def authority_for(self, action: Action | RobotOrder) -> Authority:
        """Return the authority that applies to decisions with an action."""
        if action == "notify":
            return "act"
        return self.authority_of.get(cast(Action, action), self.authority) if self.enabled else "advise"


_Kind = Literal["urgent", "robot", "order", "notify", "other"]


def _kind_of(action: str) -> _Kind:
    """Return the kind of an action; a request waits only for other requests of its kind."""
    if action in URGENT_ACTIONS:
        return "urgent"
    if action in ROBOT_ACTIONS:
        return "robot"
    if action in ROBOT_ORDERS:
        return "order"
    return "notify" if action == "notify" else "other"


class _Lane:
    """A queue of decisions and the thread that sends them."""

    def __init__(self, name: str, work: "Callable[[queue.SimpleQueue[Decision | None]], None]") -> None:
        self.waiting: queue.SimpleQueue[Decision | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=work, args=(self.waiting,), name=name, daemon=True)
        self.thread.start()


class Dispatcher:
    """Sends decisions to a control from threads of its own, so that the caller is never blocked.

    Requests of one kind are sent one at a time, in the order of submission. The kinds do not wait for each other:
    ``stop`` and ``abort``, the actions of a robot, a person's orders to a robot, ``notify``, and all others.

    Parameters
    ----------
    settings : settings of the control
    control : control that receives the requests; None rejects every decision that would be sent. Up to one thread per
        kind of action calls it at once. Only a :class:`SelectiveControl` that takes ``notify`` receives it.
    on_status : receives, on a thread of the dispatcher, a copy of the decision at each change of its status
        (proposed → sent → acknowledged | rejected | expired), in order. Up to one thread per kind of action calls it
        at once. It must not block for long; its exceptions are logged.
    """

    def __init__(
        self, settings: ControlSettings, control: Control | None, on_status: Callable[[Decision], None]
    ) -> None:
        self._settings = settings
        self._control = control
        self._on_status = on_status
        self._outstanding: dict[str, Decision] = {}
        """Decisions that were sent and have neither been answered nor timed out, by id."""
        self._pending = 0
        self._settled = threading.Condition()
        self._closing = False
        self.halted = ""
        """Who made an emergency stop, and why; empty if nobody did. It rejects all waiting decisions but stops."""
        self._lanes = {kind: _Lane(f"dispatcher-{kind}", self._work) for kind in get_args(_Kind)}

    def takes(self, action: str) -> bool:
        """Return whether the control lists an action among those that it takes."""
        return takes(self._control, action)

    def submit(self, decision: Decision) -> Decision:
        """Accept a proposed decision from any thread, without blocking.

        Returns
        -------
        The decision; its status is ``expired`` after ``close``. ``on_status`` receives all later statuses.
        """
        with self._settled:
            if self._closing:
                return decision.to("expired", "the agent is closing")
            self._pending += 1
            self._lanes[_kind_of(decision.action)].waiting.put(decision)
        return decision

    def drain(self, timeout: float) -> bool:
        """Wait until every submitted decision has its last status; return False after ``timeout`` s."""
        with self._settled:
            return self._settled.wait_for(lambda: self._pending == 0, timeout)

    def close(self, timeout: float | None = None) -> None:
        """Finish the current request, expire waiting decisions and end the threads; a second call does nothing.

        A request that has no answer after the timeout is ``expired``, even if the control answers later.

        Parameters
        ----------
        timeout : longest time to wait for the threads, s; by default the control's timeout plus 1 s
        """
        with self._settled:
            if not self._closing:
                self._closing = True
                for lane in self._lanes.values():
                    lane.waiting.put(None)
        if threading.current_thread() not in {lane.thread for lane in self._lanes.values()}:
            end = time.monotonic() + (self._settings.timeout_s + 1 if timeout is None else timeout)
            for lane in self._lanes.values():
                lane.thread.join(max(0.0, end - time.monotonic()))
            with self._settled:
                given_up, self._outstanding = self._outstanding, {}
            for decision in given_up.values():
                self._report(decision, "expired", "the agent closed before the answer, outcome unknown")

    def _work(self, waiting: "queue.SimpleQueue[Decision | None]") -> None:
        while (decision := waiting.get()) is not None:
            try:
                self._settle(decision)
            finally:
                with self._settled:
                    self._pending -= 1
                    self._settled.notify_all()

    def _settle(self, decision: Decision) -> None:
        if self._closing:
            self._report(decision, "expired", "the agent closed before it was sent")
        elif decision.action == "notify" and not self.takes("notify"):
            self._report(decision, "acknowledged", "logged; the config names no destination")
        elif self.halted and decision.rule == OPERATOR and decision.action == "resume":
            self._report(decision, "rejected", f"halted by an {self.halted}; xas-agent release first")
        elif self.halted and decision.action not in ("notify", *URGENT_ACTIONS) and decision.rule != OPERATOR:
            self._report(decision, "rejected", self.halted)
        elif self._control is None:
            self._report(decision, "rejected", "no control is connected")
        else:
            self._report(decision, "sent", "")
            with self._settled:
                self._outstanding[decision.id] = decision
            reply = self._request(self._control, decision)
            with self._settled:  # so that only one thread reports the last status
                awaited = self._outstanding.pop(decision.id, None) is not None
            if awaited:
                self._report(decision, reply.status, reply.reason)
            else:
                _log.warning("control answered an expired request", rule=decision.rule, status=reply.status)

    def _request(self, control: Control, decision: Decision) -> Reply:
        try:
            args = decision.as_message() if decision.action == "notify" else decision.args
            reply = control.request(decision.id, decision.action, args, timeout=self._settings.timeout_s)
            if not isinstance(reply, Reply):
                raise TypeError(f"found {reply!r}, expected a Reply")
        except Exception as error:
            return Reply("expired", f"the control failed, outcome unknown: {type(error).__name__}: {error}")
        return reply

    def _report(self, decision: Decision, status: Status, reason: str) -> None:
        try:
            self._on_status(decision.to(status, reason))
        except Exception:
            _log.exception("status callback failed", rule=decision.rule, status=status)
