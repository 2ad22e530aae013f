"""Decisions from their proposal to their last status."""

import math
import queue
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..types import ADVICE, COURSE_OF_A_RUN, URGENT_ACTIONS, Control, Decision, Memory
from .dispatch import OPERATOR, ControlSettings, Dispatcher

_HURRIED_S = 1.0
"""Longest wait for a control after the host has given up, s."""
_HOUR_S = 3600.0
_SENDS_ON = ("resume", "stop", "abort")
"""Actions after which an experiment is not paused."""
_OF_A_RUN = ("pause", "resume", "stop", "abort", "repeat_frame")
"""Actions that are void once the run for which they were requested has stopped."""
_MAX_OUTCOMES = 100


@dataclass(frozen=True, slots=True)
class Paused:
    """A pause of the experiment that the agent requested."""

    decision: Decision
    since: float
    """``time.monotonic()`` at which the control acknowledged the pause."""


class Requests:
    """Sends decisions once they are published, and returns the changes of their status. Not thread-safe.

    The settings decide whether a decision remains advice, waits for a person, is sent, or is rejected because its
    action was requested too often or because of an emergency stop.

    Parameters
    ----------
    settings : limits for the control
    control : control that receives the decisions; None to advise only
    """

    def __init__(self, settings: ControlSettings, control: Control | None) -> None:
        self._settings = settings
        self._statuses: queue.SimpleQueue[Decision] = queue.SimpleQueue()
        self._dispatcher = Dispatcher(settings, control, self._statuses.put)
        self.open: dict[str, str] = {}
        """Uid of the watched run of each decision that has no final status, by the decision's id."""
        self.proposed: list[Decision] = []
        """Decisions that the next call of ``send`` sends."""
        self._unconfirmed: dict[str, tuple[Decision, float]] = {}
        """Decisions that wait for a person, with the ``time.monotonic()`` at which their wait ends."""
        self._of_run: Counter[tuple[str, str]] = Counter()
        self._of_hour: dict[str, deque[float]] = {}
        """Unix times of the decisions of the last hour, by action."""
        self._counted = 0
        """Number of decisions counted towards limits."""
        self._remembered = ("", 0)
        """Emergency stop and ``_counted`` at the last call of ``memory``."""
        self.sent: set[str] = set()
        """Ids of decisions that were sent and have no final status."""
        self.outcomes: dict[str, Decision] = {}
        """The latest decisions that have a final status, by id."""
        self.paused: Paused | None = None
        """The pause that the agent requested, until it is over."""
        self._newest_frame: dict[str, int] = {}
        """Number of the newest frame of each run."""

    def takes(self, order: str) -> bool:
        """Return whether a control takes an order from a person to a robot."""
        return self._dispatcher.takes(order)

    @property
    def unconfirmed(self) -> list[tuple[Decision, float]]:
        """Decisions that wait for a person, with the time left, s; safe to read from any thread."""
        now = time.monotonic()
        return [(decision, until - now) for decision, until in list(self._unconfirmed.values())]

    @property
    def halted(self) -> str:
        """Who made an emergency stop, and why; empty if nobody did."""
        return self._dispatcher.halted

    def halt(self, by: str, why: str) -> None:
        """Make an emergency stop, from any thread: from now on the rules can only stop the experiment."""
        self._dispatcher.halted = f"emergency stop by {by}{why and f': {why}'}"

    def memory(self) -> Memory:
        """Return the emergency stop and the counts for limits, which outlast a restart; empty if unchanged."""
        if (now := (self.halted, self._counted)) == self._remembered:  # asked after each batch of documents
            return {}
        self._remembered = now
        counts = [[run, action, count] for (run, action), count in self._of_run.items()]
        hours = {action: list(times) for action, times in self._of_hour.items()}
        return {("", "requests"): [self.halted, counts, hours]}

    def restore(self, memory: Memory) -> None:
        """Continue with the states that :meth:`memory` returned."""
        if (kept := memory.get(("", "requests"))) is None:
            return
        self._dispatcher.halted, counts, hours = kept
        self._of_run = Counter({(run, action): count for run, action, count in counts})
        self._of_hour = {action: deque(times, maxlen=10_000) for action, times in hours.items()}

    def propose(self, decision: Decision) -> Decision:
        """Take a new decision; return it with the status with which it is to be published first."""
        proposed = decision.to("proposed")
        if refusal := self._refusal(decision):
            self.open[decision.id] = decision.run_uid
            self._statuses.put(decision.to("rejected", refusal))
            return proposed
        authority = self._settings.authority_for(decision.action)
        if authority == "advise":
            return decision.to("proposed", ADVICE if self._settings.enabled else f"controls are off: {ADVICE}")
        if safer := self._safer(decision):
            self.open[decision.id] = decision.run_uid
            reason = f"superseded: the rule {safer.rule} requests {safer.action} on the same frame"
            self._statuses.put(decision.to("rejected", reason))
            return proposed
        self._count(decision)
        if authority == "confirm":
            self._await_person(decision, self._settings.confirm_within_s)
            return decision.to("proposed", f"waits {self._settings.confirm_within_s:g} s for approval")
        self._take(proposed)
        return proposed

    def order(self, decision: Decision, by: str = "") -> Decision:
        """Take a person's decision, which needs neither permission nor confirmation."""
        ordered = decision.to("proposed", by=by)
        self._take(ordered)
        return ordered

    def approve(self, id: str, by: str) -> Decision:
        """Send a decision that waits for a person.

        Raises
        ------
        KeyError
            No decision of this id waits.
        """
        decision, _ = self._unconfirmed.pop(id)
        approved = decision.to("approved", f"approved by {by}", by)
        self._take(approved)
        return approved

    def reject(self, id: str, by: str, why: str = "") -> Decision:
        """Give up a decision that waits for a person.

        Raises
        ------
        KeyError
            No decision of this id waits.
        """
        decision, _ = self._unconfirmed.pop(id)
        rejected = decision.to("rejected", f"rejected by {by}{why and f': {why}'}", by)
        self.open.pop(id, None)
        self._remember(rejected)
        return rejected

    def reject_all(self, by: str) -> list[Decision]:
        """Reject all decisions that wait for a person or for ``send``, after an emergency stop."""
        urgent = [d for d in self.proposed if d.action in URGENT_ACTIONS]
        waiting, self.proposed = [d for d in self.proposed if d not in urgent], urgent
        for decision in waiting:
            self._statuses.put(decision.to("rejected", self.halted))
        return [self.reject(id, by, "emergency stop") for id in list(self._unconfirmed)]

    def release(self) -> None:
        """End an emergency stop."""
        self._dispatcher.halted = ""

    def measured(self, run_uid: str, frame: int) -> None:
        """Note the number of a complete frame of a run; the experiment can no longer repeat earlier frames."""
        self._newest_frame[run_uid] = max(frame, self._newest_frame.get(run_uid, 0))

    def run_stopped(self, run_uid: str) -> None:
        """Expire the decisions on a run that stopped before a person approved them."""
        for decision, _ in list(self._unconfirmed.values()):
            if decision.run_uid == run_uid and decision.action in _OF_A_RUN:
                del self._unconfirmed[decision.id]
                reason = "the run stopped before an approval"
                self._statuses.put(decision.to("expired", reason))

    def take_up(self, decision: Decision, age_s: float) -> None:
        """Take over a decision of an earlier process; it expires if it is too old.

        Parameters
        ----------
        age_s : time since a person approved it or, if none had to, since it was proposed, s
        """
        asks = decision.rule != OPERATOR and self._settings.authority_for(decision.action) == "confirm"
        waits = decision.status == "proposed" and asks
        if decision.final or (decision.status == "proposed" and bool(decision.status_reason) and not waits):
            return
        if decision.status == "sent":
            self.sent.add(decision.id)
        if waits and age_s <= self._settings.confirm_within_s:
            self._await_person(replace(decision, status_reason=""), self._settings.confirm_within_s - age_s)
        elif not waits and age_s <= self._settings.max_age_s:
            self._take(decision)
        else:
            self.open[decision.id] = decision.run_uid
            self.sent.add(decision.id)  # it may have been sent
            reason = f"{age_s:.0f} s old when the agent came back, outcome unknown"
            self._statuses.put(decision.to("expired", reason))

    def send(self) -> None:
        """Send the decisions taken so far, without waiting for the control."""
        proposed, self.proposed = self.proposed, []
        for decision in proposed:
            if refusal := self._too_late(decision):
                self._statuses.put(decision.to("rejected", refusal))
                continue
            submitted = self._dispatcher.submit(decision)
            if submitted.status == "expired":
                self._statuses.put(submitted)

    def changes(self) -> Iterator[Decision]:
        """Yield the decisions whose status has changed."""
        self._expire()
        while not self._statuses.empty():
            decision = self._statuses.get()
            self._follow_pause(decision)
            if decision.status == "sent":
                self.sent.add(decision.id)
            yield decision
            if decision.final:
                self.sent.discard(decision.id)
                self.open.pop(decision.id, None)
                self._remember(decision)

    def forget(self, run_uid: str) -> None:
        """Forget the counts and the pause of a run that stopped."""
        for key in [key for key in self._of_run if key[0] == run_uid]:
            del self._of_run[key]
        self._newest_frame.pop(run_uid, None)
        if self.paused is not None and self.paused.decision.run_uid == run_uid:
            self.paused = None

    def drain(self, timeout: float | None = None) -> bool:
        """Wait for the answers, by default as long as a control may take; return whether all have arrived."""
        return self._dispatcher.drain(self._settings.timeout_s if timeout is None else timeout)

    def close(self, *, hurried: bool) -> None:
        """Wait for the answers, or expire the open decisions if ``hurried``, and end the threads."""
        for decision, _ in self._unconfirmed.values():
            reason = "the agent closed before an approval"
            self._statuses.put(decision.to("expired", reason))
        self._unconfirmed.clear()
        self.drain(0.0 if hurried else None)
        self._dispatcher.close(_HURRIED_S if hurried else None)

    def _remember(self, decision: Decision) -> None:
        self.outcomes[decision.id] = decision
        if len(self.outcomes) > _MAX_OUTCOMES:
            del self.outcomes[next(iter(self.outcomes))]

    def _take(self, decision: Decision) -> None:
        self.open[decision.id] = decision.run_uid
        self.proposed.append(decision)

    def _await_person(self, decision: Decision, for_s: float) -> None:
        self.open[decision.id] = decision.run_uid
        self._unconfirmed[decision.id] = decision, time.monotonic() + for_s

    def _too_late(self, decision: Decision) -> str:
        """Return why a frame can no longer be repeated; empty if it can, and for other actions."""
        frame = decision.args.get("frame") if decision.action == "repeat_frame" else None
        newest = self._newest_frame.get(decision.run_uid, 0)
        if frame is None or newest <= frame:
            return ""
        return f"frame {frame} was to be repeated; the run is at frame {newest} by now"

    def _refusal(self, decision: Decision) -> str:
        """Return why a rule's decision is rejected at once; empty if it is accepted."""
        action, settings = decision.action, self._settings
        if action == "notify" or settings.authority_for(action) == "advise":
            return ""
        if action not in settings.allow:
            return f"{action} is not among the allowed actions"
        if action == "set" and (refusal := settings.refusal_of_value(decision.args)):
            return refusal
        if self.halted and action not in URGENT_ACTIONS:
            return self.halted
        if (limit := settings.limits.get(action)) is None:
            return ""
        if self._of_run[decision.run_uid, action] >= _or_any(limit.per_run):
            return f"limit: {limit.per_run} of {action} per run"
        hour = self._of_hour.setdefault(action, deque())
        while hour and hour[0] < time.time() - _HOUR_S:
            hour.popleft()
        return f"limit: {limit.per_hour} of {action} per hour" if len(hour) >= _or_any(limit.per_hour) else ""

    def _safer(self, decision: Decision) -> Decision | None:
        """Return a sent request on the same frame that this decision contradicts."""
        rank = COURSE_OF_A_RUN.get(decision.action, 0)
        for other in self.proposed:
            same = (other.run_uid, other.time) == (decision.run_uid, decision.time)
            if same and other.rule != OPERATOR and COURSE_OF_A_RUN.get(other.action, rank) < rank:
                return other
        return None

    def _count(self, decision: Decision) -> None:
        self._counted += 1
        self._of_run[decision.run_uid, decision.action] += 1
        self._of_hour.setdefault(decision.action, deque(maxlen=10_000)).append(time.time())

    def _expire(self) -> None:
        now = time.monotonic()
        for decision in [waiting for waiting, until in self._unconfirmed.values() if until <= now]:
            del self._unconfirmed[decision.id]
            reason = f"nobody approved it within {self._settings.confirm_within_s:g} s"
            self._statuses.put(decision.to("expired", reason))

    def _follow_pause(self, decision: Decision) -> None:
        if decision.status != "acknowledged":
            return
        if decision.action == "pause":
            self.paused = Paused(decision, time.monotonic())
        elif decision.action in _SENDS_ON:
            self.paused = None


def _or_any(limit: int | None) -> float:
    return math.inf if limit is None else limit
