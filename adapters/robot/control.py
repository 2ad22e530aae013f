"""The agent's side of a robot: it sends actions, follows them to their end, and gives the heartbeat."""

import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

from ...agent.types import ROBOT_ACTIONS, ROBOT_ORDERS, Reply, get_logger
from ..zmq import ZMQControl
from .schema import RobotStatus
from .settings import RobotSettings

log = get_logger()

_LONGEST_BEAT_S = 1.0
"""Longest interval between two heartbeats, s."""
_BEATS = 5
"""Number of heartbeats within the robot's time limit, so that some may be lost."""
_MISSED = 2
"""Number of successive heartbeats without an answer at which a person is alerted."""
_FIRST_POLL_S = 0.02
"""First interval between queries on an accepted action, s; it doubles up to that of the heartbeats."""
_UNKNOWN_SAFE_AFTER_S = 10.0
"""Time after which a robot counts as lost if it has not stated when it goes into its safe state, s."""


class RobotControl:
    """Sends the actions of decisions to a robot; any thread may call it.

    An action is sent repeatedly, under the decision's id, until the robot answers or the time is over. Status queries
    then follow an accepted action to its end, so that a decision has its final status only then:

    - ``acknowledged``: the robot has done it;
    - ``rejected``: the robot refused it, and nothing was done;
    - ``expired``: it failed, was halted, or its outcome is unknown: the robot did not accept it in time, fell silent,
      or does not know it.

    A person's ``halt`` and ``release`` wait for no action, and are answered at once.

    From its creation to ``close`` the control gives the heartbeat without which the robot goes into its safe state.

    Parameters
    ----------
    settings : RobotSettings

    Raises
    ------
    InputError
        The settings provide nothing that identifies the robot.
    """

    actions = (*ROBOT_ACTIONS, *ROBOT_ORDERS)

    def __init__(self, settings: RobotSettings) -> None:
        self.settings = settings
        self._control = ZMQControl(settings, retry_s=settings.retry_s)
        self._safe_after_s = _UNKNOWN_SAFE_AFTER_S
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="robot-heartbeat", daemon=True)
        self._thread.start()

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Request ``action`` and wait until it is done; never raises.

        Parameters
        ----------
        timeout : float
            Longest time until the robot accepts it, s; ``action_timeout_s`` limits the time until it is done.
        """
        reply = self._control.request(id, action, args, timeout)
        if reply.status == "acknowledged" and action in ROBOT_ACTIONS:
            reply = self._follow(id)
        log.info("robot", id=id, action=action, status=reply.status, reason=reply.reason)
        return reply

    def close(self) -> None:
        """End the heartbeat, so that the robot goes into its safe state, and give up unfinished actions."""
        self._closing.set()
        self._control.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _follow(self, id: str) -> Reply:
        """Query an accepted action until it is done."""
        heard = time.monotonic()
        end, poll_s = heard + self.settings.action_timeout_s, _FIRST_POLL_S
        while not self._closing.wait(poll_s):
            poll_s = min(2 * poll_s, self._beat_s)
            status = self._ask(id)
            now = time.monotonic()
            if status is not None:
                heard = now
                if status.of is None:
                    return Reply("expired", "the robot knows nothing of it any more: it may have restarted")
                if status.of.state == "done":
                    return Reply("acknowledged", "done")
                if status.of.state != "running":
                    return Reply("expired", f"{status.of.state}: {status.of.reason}")
            elif now - heard > self._safe_after_s:
                return Reply(
                    "expired",
                    f"connection lost while it was in progress: no answer for {now - heard:.3g} s; without the agent "
                    f"the robot goes into its safe state after {self._safe_after_s:g} s",
                )
            if now > end:
                return Reply("expired", f"not done within {self.settings.action_timeout_s:g} s")
        return Reply("expired", "the agent closed before it was done; the robot goes into its safe state")

    @property
    def _beat_s(self) -> float:
        return min(_LONGEST_BEAT_S, self._safe_after_s / _BEATS)

    def _beat(self) -> None:
        missed = 0
        while not self._closing.is_set():
            answered = self._ask() is not None
            if answered and missed >= _MISSED:
                log.warning("the robot answers again", endpoint=self.settings.address)
            missed = 0 if answered else missed + 1
            if missed == _MISSED and not self._closing.is_set():
                log.warning("the robot does not answer", endpoint=self.settings.address)
            self._closing.wait(self._beat_s)

    def _ask(self, of: str | None = None) -> RobotStatus | None:
        """Give a heartbeat and return the robot's status; None if there is no answer."""
        args = {"of": of, "heartbeat": True}
        # Each query has its own id, so that no old answer can be taken for the present state.
        reply = self._control.request(uuid.uuid4().hex, "status", args, self._beat_s)
        if reply.status != "acknowledged":
            return None
        try:
            status = RobotStatus.model_validate(reply.data)
        except ValueError as error:
            log.warning("unreadable status of the robot", detail=" ".join(str(error).split())[:300])
            return None
        self._safe_after_s = status.safe_after_s
        return status
