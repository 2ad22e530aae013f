"""The messages of a robot, as pydantic models: seven requests and one answer.

They are the messages of every control (:mod:`xas_agent.adapters.zmq.control`), with the actions of a robot.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter

from ...agent.types import Described

Name = Annotated[str, Field(min_length=1, max_length=200)]
State = Literal["ready", "busy", "safe", "halted"]
JobState = Literal["running", "done", "failed", "halted"]


class _Args(Described):
    # Extra keys are refused, since an unknown key may be a misspelt limit.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class Load(_Args):
    """Bring a sample into the beam. The action is done when the sample is there."""

    sample: Name
    """Name of the sample or of its place, as the robot knows it."""


class Unload(_Args):
    """Take the sample out of the beam. The action is done when the place is free."""


class Dose(_Args):
    """Add a reagent to the sample. The action is done when all of it is added."""

    reagent: Name
    """Name of the reagent, as the robot knows it."""
    amount: float = Field(gt=0)
    """Amount, in ``unit``."""
    unit: Literal["uL", "mL", "ug", "mg", "g", "umol", "mmol"]
    """Unit of ``amount``."""


class Heat(_Args):
    """Bring the sample to a temperature and keep it there. The action is done when the temperature is reached."""

    target_c: float = Field(ge=-273.15)
    """Temperature to reach, °C. At or below room temperature, the heater is switched off."""
    ramp_c_per_min: float = Field(gt=0)
    """Rate of the change, °C/min."""


class Halt(_Args):
    """Emergency stop: end the action in progress, go into the safe state, and accept no action until ``release``.

    It takes precedence over all other requests.
    """

    reason: str = Field(default="", max_length=1000)
    """Who requests the stop, and why."""


class Release(_Args):
    """End an emergency stop. The safe state lasts until the next action."""


class Query(_Args):
    """Request the status. This changes nothing, except that a heartbeat postpones the safe state."""

    of: Name | None = None
    """Id of the action to report on; null: none."""
    heartbeat: bool = False
    """Whether the sender supervises the robot. A program that only displays the status must not set it."""


class _Request(Described):
    id: Name
    """Id of the request, equal to that of the decision. A repeated request is only answered again."""
    time: float | None = None
    """Time at which the request is sent, Unix s; only with a shared secret."""
    auth: str | None = None
    """Proof of the shared secret: HMAC-SHA256, in hex, of the other fields."""


class LoadRequest(_Request):
    action: Literal["load"]
    args: Load


class UnloadRequest(_Request):
    action: Literal["unload"]
    args: Unload = Unload()


class DoseRequest(_Request):
    action: Literal["dose"]
    args: Dose


class HeatRequest(_Request):
    action: Literal["heat"]
    args: Heat


class HaltRequest(_Request):
    action: Literal["halt"]
    args: Halt = Halt()


class ReleaseRequest(_Request):
    action: Literal["release"]
    args: Release = Release()


class StatusRequest(_Request):
    action: Literal["status"]
    args: Query = Query()


ActionRequest = LoadRequest | UnloadRequest | DoseRequest | HeatRequest
RobotRequest = ActionRequest | HaltRequest | ReleaseRequest | StatusRequest
REQUESTS: tuple[type[RobotRequest], ...] = get_args(RobotRequest)
_REQUEST: TypeAdapter[RobotRequest] = TypeAdapter(
    Annotated[RobotRequest, Field(discriminator="action")], config=ConfigDict(defer_build=True)
)


class Job(Described):
    """An accepted action and its outcome."""

    id: Name
    """Id of the request."""
    action: Literal["load", "unload", "dose", "heat"]
    """Requested action."""
    args: dict[str, Any]
    """Arguments of the action."""
    state: JobState
    """``running``, ``done``, ``failed``, or ``halted`` by an emergency stop before it was done."""
    reason: str = ""
    """Why it failed or was halted."""


class RobotStatus(Described):
    """The present state of the robot."""

    state: State
    """``ready``; ``busy`` with an action; ``safe``: the heater is off and the sample is kept, until the next action;
    or ``halted``: as ``safe``, but no action is accepted until ``release``."""
    reason: str = ""
    """Why it is halted or in the safe state, or the action that keeps it busy."""
    sample: str | None = None
    """Sample in the beam; null: none."""
    temperature_c: float | None = None
    """Temperature of the sample, °C; null: not measured."""
    heater_on: bool = False
    """Whether the heater holds or changes the temperature."""
    safe_after_s: float = Field(gt=0)
    """Time without a heartbeat after which the robot goes into its safe state, s."""
    of: Job | None = None
    """The action named in the request; null: none, or unknown to the robot."""


class RobotAnswer(Described):
    """The answer to any request."""

    id: str | None = None
    """Id of the request; null if it could not be read."""
    status: Literal["acknowledged", "rejected", "expired"]
    """``acknowledged``: the action is accepted, and the status shows when it is done. ``rejected``: nothing was or
    will be done. ``expired``: the robot does not know whether it was done."""
    reason: str = ""
    """Why the action was not accepted."""
    data: RobotStatus | None = None
    """The status, if it was requested."""
    request: str | None = None
    """The ``auth`` of the request; only with a shared secret."""
    auth: str | None = None
    """Proof of the shared secret, as in the request."""


ANSWERS = (RobotAnswer, RobotStatus, Job)
"""The model of an answer, and the models of its parts."""


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schemas of the messages by name."""
    return {"Request": _REQUEST.json_schema(), "Answer": RobotAnswer.model_json_schema()}


def read_request(id: object, action: str, args: Mapping[str, Any]) -> RobotRequest:
    """Return a request as its model; raise ValidationError (a ValueError) for anything else."""
    return _REQUEST.validate_python({"id": id, "action": action, "args": args})


def check_args(action: str, args: Mapping[str, Any]) -> None:
    """Raise ValidationError (a ValueError) for arguments that a robot would refuse."""
    read_request("a", action, args)
