"""Arguments of the actions ``set`` and ``repeat_frame``."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from .settings import Settings, validate_settings


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


_ARGS: dict[str, type[Settings]] = {"set": SetValue, "repeat_frame": RepeatFrame}


def check_action_args(action: str, args: Mapping[str, Any]) -> None:
    """Refuse arguments that do not fit ``set`` or ``repeat_frame``; those of other actions are not judged.

    Raises
    ------
    InputError
        An argument is unknown, missing or out of range.
    """
    if action in _ARGS:
        validate_settings(dict(args), _ARGS[action], f"args of {action}")
