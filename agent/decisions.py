"""Decisions from their proposal to their last status, in the agent's runs, and what a person says of them."""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .decide import OPERATOR, Paused, Requests, Rules
from .publish import AgentRun, AgentRuns
from .types import Action, Decision, RobotOrder, get_logger

_log = get_logger()


class Decisions:
    """Requests what rules and persons decide, and publishes each change of its status. For one thread.

    Parameters
    ----------
    rules : rules that take a decision back which was never sent
    requests : sends decisions
    runs : runs of the agent, in which decisions are published
    commit : reports the progress, so that after a restart the answers to a person still hold
    """

    def __init__(self, rules: Rules, requests: Requests, runs: AgentRuns, commit: Callable[[], None]) -> None:
        self._rules, self._requests, self._runs, self._commit = rules, requests, runs, commit
        self.changed: set[str] = set()
        """Runs for which the memory of the rules changed by other than a frame, since the last progress."""

    def propose_in_runs(self, decisions: Iterable[Decision]) -> None:
        """Publish decisions that no frame caused in the run of the agent, which may begin with them."""
        for decision in decisions:
            uid = decision.run_uid
            self.propose(decision, self._runs.of(uid) or self._runs.open(uid, decision.time, None))
            self.changed.add(uid)

    def propose(self, decision: Decision, run: AgentRun) -> None:
        """Take a decision of a rule, and publish it in a run of the agent."""
        names = self._runs.names(decision.run_uid, file=decision.scan.file)
        _log.info("decision", rule=decision.rule, action=decision.action, reason=decision.reason, **names)
        proposed = self._requests.propose(decision)
        if decision.id in {waiting.id for waiting, _ in self._requests.unconfirmed}:
            how = f"xas-agent approve {decision.id[:8]}, or xas-agent reject {decision.id[:8]}"
            _log.warning("decision waits for a person", rule=decision.rule, action=decision.action, how=how)
        run.decision(proposed)

    def publish_statuses(self) -> None:
        """Publish the changes of status since the last call."""
        if self._runs.resuming:  # the run of a decision may be read again only later
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
        """Decisions that wait for a person, with the time that remains, s."""
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
        """Send a decision that waits for a person; raise KeyError if none of this id does."""
        approved = self._publish_decision(self._requests.approve(id, by))
        self._log_answer("decision approved", approved, by)
        self._commit()  # before the person is told, so that a restart keeps it
        return approved

    def reject(self, id: str, by: str, why: str = "") -> Decision:
        """Give up a decision that waits for a person; raise KeyError if none of this id does."""
        rejected = self._publish_decision(self._requests.reject(id, by, why))
        self._log_answer("decision rejected", rejected, by, why)
        self._rules.undo(rejected)
        self.changed.add(rejected.run_uid)
        self._commit()
        return rejected

    def order(
        self, action: Action | RobotOrder, by: str, reason: str = "", args: Mapping[str, Any] | None = None
    ) -> Decision:
        """Request an action for a person, whatever the rules say."""
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
        """Make an emergency stop: stop the experiment, reject what waits; until ``release`` rules can only stop.

        Returns
        -------
        The orders that it gave: ``stop``, and ``halt`` to a robot if there is one.
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
        """Let no decision of a rule but to stop be sent from now on; from any thread, also while this one is busy."""
        self._requests.halt(by, why)
        _log.error("emergency stop", by=by, why=why)

    def outcome(self, id: str) -> Decision | None:
        """Return a decision of late with its last status; None if it has none yet, or is forgotten."""
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
        """Publish a decision in the run of the agent, which may begin with it."""
        uid = decision.run_uid
        (self._runs.of(uid) or self._runs.open(uid, decision.time, None)).decision(decision)
        return decision
