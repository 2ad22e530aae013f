"""The address of a robot, and the time limits of its actions."""

from pydantic import Field

from ..zmq import ControlEndpoint


class RobotSettings(ControlEndpoint):
    """A robot that loads and prepares samples, and follows the message schema of robots."""

    retry_s: float = Field(default=1.0, gt=0)
    """Time after which an unanswered request is repeated under the same id, s; the robot does nothing twice."""
    action_timeout_s: float = Field(default=900.0, gt=0)
    """Longest time until an accepted action is done, s; after it the decision is ``expired``."""
