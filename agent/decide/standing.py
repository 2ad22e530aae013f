"""How a rule stands: the last judgement of its conditions, and their distance from their bars."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..types import Settings
from .triggers import (
    Band,
    Change,
    Compared,
    Extremum,
    FramesSetAside,
    NotOf,
    Plateau,
    QuantityTrigger,
    QuantityWatch,
    Quiet,
    QuietWatch,
    Rate,
    SetAsideWatch,
    Threshold,
    Trigger,
    Unfamiliar,
    Watch,
    triggers_in,
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a rule with its last judgement."""

    quantity: str
    """Name of the judged quantity, or of the objects counted."""
    bar: str
    """Bar of the condition in words, for example ``above 3.5 e``."""
    unit: str = ""
    """Unit of the value and of the distance; empty if dimensionless."""
    what: str = ""
    """What the value describes, if not the quantity itself, for example ``change in 30 s``."""
    how: str = ""
    """How the value follows from several frames, for example ``line of 21``; empty if the newest frame gives it."""
    value: float | None = None
    """The judged value; None until it can be judged, for instance before a window is full."""
    bars: tuple[float, ...] = ()
    """The bar, or its two ends; empty while they are unknown."""
    beyond: float = 0.0
    """Distance of the value beyond the bar; negative if it has not reached the bar."""
    negated: bool = False
    """Whether the rule requires that the condition does not hold."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one rule stands on the series of the newest frame."""

    rule: str
    action: str
    conditions: tuple[Condition, ...]
    holds: bool = False
    """Whether the whole condition of the rule holds."""
    followed: bool = True
    """Whether the rule is followed in the present stage of the series."""
    decisions_left: int = 1
    """Number of decisions that the rule may still make in the run."""


def conditions_of(trigger: Trigger, units: Mapping[str, str], watch: Watch | None = None) -> tuple[Condition, ...]:
    """Return the conditions of a trigger that have a bar, in their order.

    Parameters
    ----------
    units : units of the quantities, by name
    watch : the watch of the trigger; None before a series has one
    """
    parts = list(triggers_in(trigger))
    watches: Sequence[Watch | None] = [None] * len(parts) if watch is None else list(watch.parts())
    return tuple(_conditions(parts, watches, units))


def _conditions(
    parts: Sequence[Settings], watches: Sequence[Watch | None], units: Mapping[str, str]
) -> Iterator[Condition]:
    for number, (part, watch) in enumerate(zip(parts, watches, strict=True)):
        negated = number > 0 and isinstance(parts[number - 1], NotOf)
        if isinstance(watch, QuietWatch | SetAsideWatch) or (isinstance(watch, QuantityWatch) and watch.judged):
            compared = watch.compared
        else:
            compared = None
        value = None if compared is None else compared.value
        bars = getattr(part, "bars", ()) if compared is None else compared.bars
        beyond = 0.0 if compared is None else beyond_bar(part, compared)
        if isinstance(part, Quiet):
            yield Condition("silence", f"{part.seconds:g} s", "s", "", "", value, bars, beyond, negated)
        elif isinstance(part, FramesSetAside):
            bar = f"{part.frames} in {part.within_s:g} s"
            yield Condition("frames set aside", bar, "", "", "", value, bars, beyond, negated)
        elif isinstance(part, QuantityTrigger | Unfamiliar):
            unit, what = _unit_and_what(part, units.get(part.quantity, ""), compared)
            bar = _bar(part, unit, compared)
            window = getattr(part, "window_frames", 1)
            how = f"line of {window}" if window > 1 else ""
            yield Condition(part.quantity, bar, unit, what, how, value, bars, beyond, negated)


def _unit_and_what(part: Settings, unit: str, compared: Compared | None) -> tuple[str, str]:
    """Return the unit of the compared value, and what the value describes if it is not the quantity itself."""
    match part:
        case Rate():
            return f"{unit or '1'}/h", "rate"
        case Plateau():
            window = "" if compared is None else compared.what.removesuffix(f" ({unit})")
            return unit, window or "change"
        case Change():
            return "", "evidence of a change"
        case _:
            return unit, ""


def _bar(part: Settings, unit: str, compared: Compared | None) -> str:
    """Return the bar of a condition in words."""
    said = f" {unit}" if unit else ""
    match part:
        case Threshold() | Band() | Unfamiliar():
            return part.bar(said)
        case Plateau():
            return f"within ± {part.tolerance:g}{said}"
        case Rate():
            above = part.above_per_hour
            return f"above {above:g}{said}" if above is not None else f"below {part.below_per_hour:g}{said}"
        case Extremum():
            side = "below" if part.of == "maximum" else "above"
            if compared is None or compared.bars[0] != compared.bars[0]:  # no turning point yet: NaN
                return f"{part.drop:g}{said} {side} its {part.of}"
            return f"{side} {compared.bars[0]:.4g}{said}"
        case Change():
            return f"{part.false_alarm_frames:g}"
        case _:
            return ""


def beyond_bar(part: Settings, compared: Compared) -> float:
    """Return how far a value is beyond the bar of its condition; negative if it has not reached the bar."""
    value, bars = compared.value, compared.bars
    match part:
        case Threshold() | Band() | Unfamiliar():
            return part.beyond(value)
        case Plateau():
            return part.tolerance - abs(value)
        case Rate():
            return value - bars[0] if part.above_per_hour is not None else bars[0] - value
        case Extremum():
            return bars[0] - value if part.of == "maximum" else value - bars[0]
        case _:  # a change, whose evidence grows up to the bar; a silence; or a count
            return value - bars[0]
