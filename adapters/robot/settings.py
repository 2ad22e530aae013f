"""Where a robot is, and how long it may take."""

from pydantic import Field

from ..zmq import ControlEndpoint


class RobotSettings(ControlEndpoint):
    """A robot that loads and prepares samples, and speaks the schema of robots."""

    retry_s: float = Field(default=1.0, gt=0)
    """Time after which an unanswered request is sent again, under the same id, s; the robot does nothing twice."""
    action_timeout_s: float = Field(default=900.0, gt=0)
    """Longest time for an accepted action to be done, s; after it the decision is ``expired``."""
