"""Decisions from proposal to final status, as the agent's runs record them, and the orders of persons."""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .decide import OPERATOR, Paused, Requests, Rules
from .publish import AgentRun, AgentRuns
from .types import Action, Decision, RobotOrder, get_logger

_log = get_logger()


class Decisions:
    """Requests the decisions of rules and persons, and publishes each change of status. Not thread-safe.

    Parameters
    ----------
    rules : rules; they take back a decision that was never sent
    requests : sends decisions
    runs : runs of the agent that publish the decisions
    commit : reports the progress, so that the answers of persons outlast a restart
    """

    def __init__(self, rules: Rules, requests: Requests, runs: AgentRuns, commit: Callable[[], None]) -> None:
        self._rules, self._requests, self._runs, self._commit = rules, requests, runs, commit
        self.changed: set[str] = set()
        """Runs in which something other than a frame changed the memory of the rules since the last progress."""

    def propose_in_runs(self, decisions: Iterable[Decision]) -> None:
        """Publish decisions that no frame caused; open the agent's run if they are its first documents."""
        for decision in decisions:
            uid = decision.run_uid
            self.propose(decision, self._runs.of(uid) or self._runs.open(uid, decision.time, None))
            self.changed.add(uid)

    def propose(self, decision: Decision, run: AgentRun) -> None:
        """Take a rule's decision, and publish it in a run of the agent."""
        names = self._runs.names(decision.run_uid, file=decision.scan.file)
        _log.info("decision", rule=decision.rule, action=decision.action, reason=decision.reason, **names)
        proposed = self._requests.propose(decision)
        if decision.id in {waiting.id for waiting, _ in self._requests.unconfirmed}:
            how = f"xas-agent approve {decision.id[:8]}, or xas-agent reject {decision.id[:8]}"
            _log.warning("decision waits for a person", rule=decision.rule, action=decision.action, how=how)
        run.decision(proposed)

    def publish_statuses(self) -> None:
        """Publish all changes of status since the last call."""
        if self._runs.resuming:  # the run of a decision may be read again later
            return
        for decision in self._requests.changes():
            names = self._runs.names(decision.run_uid, file=decision.scan.file)
            if decision.status in ("rejected", "expired") and decision.id not in self._requests.sent:
                self._rules.undo(decision)
                self.changed.add(decision.run_uid)
            if decision.final:
                about = {"rule": decision.rule, "action": decision.action, "reason": decision.status_reason}
                failed = decision.status in ("rejected", "expired")
                (_log.warning if failed else _log.info)("decision answered", status=decision.status, **about, **names)
            if (run := self._runs.of(decision.run_uid)) is not None:
                run.decision(decision)

    @property
    def unconfirmed(self) -> list[tuple[Decision, float]]:
        """Decisions that wait for a person, with the time left, s."""
        return self._requests.unconfirmed

    @property
    def paused(self) -> Paused | None:
        """The pause that the agent requested, until it is over."""
        return self._requests.paused

    @property
    def halted(self) -> str:
        """Who made an emergency stop, and why; empty if nobody did."""
        return self._requests.halted

    def approve(self, id: str, by: str) -> Decision:
        """Send the waiting decision with this id; raise KeyError if there is none."""
        approved = self._publish_decision(self._requests.approve(id, by))
        self._log_answer("decision approved", approved, by)
        self._commit()  # first of all, so that a restart keeps the approval that the person is told
        return approved

    def reject(self, id: str, by: str, why: str = "") -> Decision:
        """Reject the waiting decision with this id; raise KeyError if there is none."""
        rejected = self._publish_decision(self._requests.reject(id, by, why))
        self._log_answer("decision rejected", rejected, by, why)
        self._rules.undo(rejected)
        self.changed.add(rejected.run_uid)
        self._commit()
        return rejected

    def order(
        self, action: Action | RobotOrder, by: str, reason: str = "", args: Mapping[str, Any] | None = None
    ) -> Decision:
        """Request an action on behalf of a person, regardless of the rules."""
        uid = self._runs.newest or ""
        decision = Decision(
            id=str(uuid.uuid4()),
            rule=OPERATOR,
            action=action,
            reason=reason or f"requested by {by}",
            run_uid=uid,
            time=time.time(),
            confidence=1.0,
            evidence=(),
            scan=self._runs.scan(uid),
            args=args or {},
        )
        ordered = self._publish_decision(self._requests.order(decision, by))
        self._commit()
        return ordered

    def halt(self, by: str, why: str = "") -> list[Decision]:
        """Stop the experiment and reject all waiting decisions; until :meth:`release`, the rules can only stop.

        Returns
        -------
        The orders: ``stop``, and ``halt`` to a robot if there is one.
        """
        if not self.halted:
            self.halt_at_once(by, why)
        for decision in self._requests.reject_all(by):
            self._publish_decision(decision)
            self._log_answer("decision rejected", decision, by, f"emergency stop{why and f': {why}'}")
            self._rules.undo(decision)
        orders = [self.order("stop", by, self.halted)]
        if self._requests.takes("halt"):
            orders.append(self.order("halt", by, self.halted, {"reason": self.halted}))
        return orders

    def halt_at_once(self, by: str, why: str = "") -> None:
        """Allow the rules only to stop from now on. Safe from any thread, even while the agent's thread is busy."""
        self._requests.halt(by, why)
        _log.error("emergency stop", by=by, why=why)

    def outcome(self, id: str) -> Decision | None:
        """Return a recent decision with its final status; None if it has none yet or is forgotten."""
        return self._requests.outcomes.get(id)

    def release(self, by: str) -> list[Decision]:
        """End an emergency stop; return the order ``release`` to a robot, if there is one."""
        _log.warning("emergency stop released", by=by)
        self._requests.release()
        self._commit()
        return [self.order("release", by)] if self._requests.takes("release") else []

    def _log_answer(self, event: str, decision: Decision, by: str, why: str = "") -> None:
        names = self._runs.names(decision.run_uid, file=decision.scan.file)
        _log.info(event, rule=decision.rule, action=decision.action, by=by, **({"why": why} if why else {}), **names)

    def _publish_decision(self, decision: Decision) -> Decision:
        """Publish a decision in the agent's run; open the run if needed."""
        uid = decision.run_uid
        (self._runs.of(uid) or self._runs.open(uid, decision.time, None)).decision(decision)
        return decision
