"""One line of ``xas-agent doctor``."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "off", "warn", "fail"]
"""State of a finding; ``off``: not installed or not set, and nothing requested needs it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    """Subject of the check, in one or two words."""
    state: State
    text: str
    """Result of the check."""
    remedy: str = ""
    """Advice; empty if nothing is to be done."""
