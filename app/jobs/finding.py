"""One line of ``xas-agent doctor``."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "off", "warn", "fail"]
"""``off``: not installed or not set, and nothing asked for needs it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    """What was checked, in one or two words."""
    state: State
    text: str
    """What was found."""
    remedy: str = ""
    """What to do about it; empty if nothing."""
