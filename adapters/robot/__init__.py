"""A robot that loads and prepares samples: its messages, the agent's side, and the robot's side."""

from .control import RobotControl
from .schema import ANSWERS, REQUESTS, RobotAnswer, RobotRequest, RobotStatus, check_args, json_schemas
from .server import Robot, RobotServer
from .settings import RobotSettings

__all__ = [
    "ANSWERS",
    "REQUESTS",
    "Robot",
    "RobotAnswer",
    "RobotControl",
    "RobotRequest",
    "RobotServer",
    "RobotSettings",
    "RobotStatus",
    "check_args",
    "json_schemas",
]
