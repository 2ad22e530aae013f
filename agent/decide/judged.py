"""What rules judged last, for a person who watches."""

from dataclasses import dataclass

from .rules import Rules
from .triggers import QuantityWatch


@dataclass(frozen=True, slots=True)
class Judged:
    """The value that a rule judged last, and the level that is nearest to it."""

    name: str
    """Name of the rule."""
    quantity: str
    """Quantity or, if another value is judged, what it is with its unit in brackets; empty if there is none."""
    value: float | None
    """None before its window is full."""
    level: float | None
    distance: float | None
    """Between both, in the unit; negative while the condition holds."""
    unit: str
    armed: bool
    """Whether the rule may decide in this run."""
    holds: bool


def judged(rules: Rules) -> list[Judged]:
    """Return what the rules judged in the series of the newest frame; of a combination, its first quantity."""
    found: list[Judged] = []
    for rule, watch, armed in rules.watched():
        part = next((part for part in watch.parts() if isinstance(part, QuantityWatch)), None)
        quantity, unit = ("", "") if part is None else (part.quantity, part.unit.strip())
        value = level = distance = None
        if part is not None and part.judged:
            compared = part.compared
            value, quantity = compared.value, compared.what or quantity
            if compared.bars:
                level = min(compared.bars, key=lambda bar: abs(bar - compared.value))
                distance = abs(level - value) * (-1 if part.holds else 1)
        found.append(Judged(rule.name, quantity, value, level, distance, unit, armed, watch.holds))
    return found
