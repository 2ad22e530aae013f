"""Decisions from their proposal to their last status."""

import queue
from collections.abc import Iterator
from dataclasses import replace

from ..types import Control, Decision
from .dispatch import ControlSettings, Dispatcher

FINAL_STATUSES = ("acknowledged", "rejected", "expired")
_HURRIED_S = 1.0
"""Longest wait for a control after the host gave up, s."""


class Requests:
    """Sends decisions once they are published, and returns the changes of their status. For one thread.

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
        """Uid of the watched run, by the id of each decision without a last status."""
        self.proposed: list[Decision] = []
        """Decisions that the next ``send`` sends."""

    def propose(self, decision: Decision) -> Decision:
        """Take a new decision; return it as it is published first."""
        screened = self._dispatcher.screen(decision)
        if not screened.status_reason:
            self._take(decision)
        return screened

    def take_up(self, decision: Decision, age_s: float) -> None:
        """Take a decision of an earlier process, made ``age_s`` before; it is given up if it is too old."""
        if decision.status in FINAL_STATUSES or decision.status_reason:
            return
        if age_s <= self._settings.max_age_s:
            self._take(decision)
        else:
            self.open[decision.id] = decision.run_uid
            reason = f"{age_s:.0f} s old when the agent came back, outcome unknown"
            self._statuses.put(replace(decision, status="expired", status_reason=reason))

    def send(self) -> None:
        """Send what was taken, without waiting for the control."""
        proposed, self.proposed = self.proposed, []
        for decision in proposed:
            submitted = self._dispatcher.submit(decision)
            if submitted.status != "proposed":
                self._statuses.put(submitted)

    def changes(self) -> Iterator[Decision]:
        """Yield the decisions whose status has changed."""
        while not self._statuses.empty():
            decision = self._statuses.get()
            yield decision
            if decision.status in FINAL_STATUSES:
                self.open.pop(decision.id, None)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait for the answers, by default as long as a control may take; return whether all have come."""
        return self._dispatcher.drain(self._settings.timeout_s if timeout is None else timeout)

    def close(self, *, hurried: bool) -> None:
        """Wait for the answers, or expire what is not answered if ``hurried``, and end the threads."""
        self.drain(0.0 if hurried else None)
        self._dispatcher.close(_HURRIED_S if hurried else None)

    def _take(self, decision: Decision) -> None:
        self.open[decision.id] = decision.run_uid
        self.proposed.append(decision)
