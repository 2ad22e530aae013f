"""Arguments of the actions ``set`` and ``repeat_frame``."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from .settings import ConfigError, Settings, validate_settings


class SetValue(Settings):
    """Set a signal of the experiment, such as the target of a furnace."""

    signal: str = Field(min_length=1)
    """Name of the signal."""
    value: float = Field(strict=True)
    """Value to set, in the signal's own unit."""


class RepeatFrame(Settings):
    """Measure the spectrum of the last frame again."""

    count_factor: float = Field(default=1.0, gt=0, le=100)
    """Counting time per point, as a multiple of that of the last frame."""
    run: str | None = None
    """Uid of the run with the judged frame; filled in by the agent."""
    frame: int | None = None
    """Number of the judged frame in its run, from 1; filled in by the agent. None if no frame was judged."""


_ARGS: dict[str, type[Settings]] = {"set": SetValue, "repeat_frame": RepeatFrame}


def check_action_args(action: str, args: Mapping[str, Any]) -> None:
    """Check that the arguments of a rule fit ``set`` or ``repeat_frame``; other actions are not checked.

    Raises
    ------
    InputError
        An argument is unknown, missing or out of range, or is one that the agent fills in.
    """
    if action not in _ARGS:
        return
    validate_settings(dict(args), _ARGS[action], f"args of {action}")
    if action == "repeat_frame" and (filled_in := {"run", "frame"} & args.keys()):
        raise ConfigError(f"args of repeat_frame: found {', '.join(sorted(filled_in))}, which the agent fills in")


def args_of_decision(action: str, args: Mapping[str, Any], run: str, frame: int | None) -> Mapping[str, Any]:
    """Return a rule's arguments with those that the agent fills in: the judged frame for ``repeat_frame``.

    >>> args_of_decision("repeat_frame", {"count_factor": 4}, "r1", 7)
    {'count_factor': 4, 'run': 'r1', 'frame': 7}
    """
    return {**args, "run": run, "frame": frame} if action == "repeat_frame" and frame is not None else args
