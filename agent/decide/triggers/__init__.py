"""The conditions of rules, and the watches that judge them on a series."""

from collections.abc import Iterator, Mapping
from typing import Annotated, assert_never

from pydantic import Field

from ...types import Settings
from . import combined
from .base import Compared, QuantityTrigger, QuantityWatch, Watch, apart
from .change import Change, ChangeWatch
from .combined import AllOf, AllWatch, AnyOf, AnyWatch, NotOf, NotWatch, Then, ThenWatch
from .level import Band, LevelWatch, Threshold, Unfamiliar, out_of_reach
from .missing import FramesSetAside, Quiet, QuietWatch, SetAsideWatch
from .trend import Extremum, ExtremumWatch, Plateau, PlateauWatch, Rate, RateWatch
from .undecided import Undecided, UndecidedWatch

__all__ = [
    "AllOf",
    "AnyOf",
    "Band",
    "Change",
    "Compared",
    "Extremum",
    "FramesSetAside",
    "NotOf",
    "Plateau",
    "QuantityTrigger",
    "QuantityWatch",
    "Quiet",
    "QuietWatch",
    "Rate",
    "SetAsideWatch",
    "Then",
    "Threshold",
    "Trigger",
    "Undecided",
    "Unfamiliar",
    "Watch",
    "apart",
    "out_of_reach",
    "start_watch",
    "triggers_in",
]

Trigger = Annotated[
    Threshold
    | Band
    | Unfamiliar
    | Plateau
    | Rate
    | Extremum
    | Change
    | Undecided
    | FramesSetAside
    | Quiet
    | AllOf
    | AnyOf
    | NotOf
    | Then,
    Field(discriminator="kind"),
]
combined.Trigger = Trigger  # pydantic looks for the name there when it first reads a combination


def start_watch(trigger: Trigger, units: Mapping[str, str]) -> Watch:
    """Return a watch for a new series.

    Parameters
    ----------
    units : units of the quantities, by name, for the texts of the reasons
    """

    def unit(trigger: QuantityTrigger) -> str:
        return units.get(trigger.quantity, "")

    def watches(*triggers: Trigger) -> tuple[Watch, ...]:
        return tuple(start_watch(part, units) for part in triggers)

    match trigger:
        case Threshold() | Band():
            return LevelWatch(trigger, unit(trigger))
        case Unfamiliar():
            return LevelWatch(trigger)
        case Plateau():
            return PlateauWatch(trigger, unit(trigger))
        case Rate():
            return RateWatch(trigger, unit(trigger))
        case Extremum():
            return ExtremumWatch(trigger, unit(trigger))
        case Change():
            return ChangeWatch(trigger, unit(trigger))
        case Undecided():
            return UndecidedWatch(trigger, unit(trigger.of))
        case FramesSetAside():
            return SetAsideWatch(trigger)
        case Quiet():
            return QuietWatch(trigger)
        case AllOf():
            return AllWatch(watches(*trigger.of))
        case AnyOf():
            return AnyWatch(watches(*trigger.of))
        case NotOf():
            return NotWatch(watches(trigger.of))
        case Then():
            return ThenWatch(watches(*trigger.of), trigger.within_s)
        case _:
            assert_never(trigger)


def triggers_in(trigger: Trigger) -> Iterator[Settings]:
    """Yield a trigger and, if it is a combination, all triggers in it."""
    yield trigger
    if isinstance(trigger, AllOf | AnyOf | Then):
        for part in trigger.of:
            yield from triggers_in(part)
    elif isinstance(trigger, NotOf | Undecided):
        yield from triggers_in(trigger.of)
