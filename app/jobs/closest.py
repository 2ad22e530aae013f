"""Finds how close a rule that made no decision came to one."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from ...agent.decide import (
    Compared,
    Extremum,
    FramesSetAside,
    NotOf,
    Plateau,
    Quiet,
    apart,
    beyond_bar,
    triggers_in,
)
from ...agent.types import Settings
from .recording import Recording
from .rehearse import Rehearsed


def closest(one: Rehearsed, recording: Recording) -> str:
    """Return the closest approach of each condition of a rule in words, for example ``OS 3.42 of 3.5 e; …``."""
    rule = one.rule
    if rule.stage is not None and not one.judged:
        return f"stage {rule.stage} was not entered"
    return "; ".join(_approaches(one, recording))


def _approaches(one: Rehearsed, recording: Recording) -> Iterator[str]:
    parts = list(triggers_in(one.rule.trigger))
    for number, part in enumerate(parts):
        negated = number > 0 and isinstance(parts[number - 1], NotOf)
        prefix = "not " if negated else ""
        if isinstance(part, Quiet):
            yield f"{prefix}no frame for {apart(_longest_gap(one, recording), part.seconds)} s of {part.seconds:g} s"
        elif isinstance(part, FramesSetAside):
            yield f"{prefix}{_most_notes(part, recording)} of {part.frames} frames set aside in {part.within_s:g} s"
        elif (quantity := getattr(part, "quantity", None)) is not None:
            judged = [j.compared for j in one.judged if j.part == number and j.compared is not None]
            unit = recording.units.get(quantity, "")
            said = _approach(part, judged, unit, negated) if judged else " was never judged: its window did not fill"
            yield f"{prefix}{quantity}{said}"


def _approach(part: Settings, judged: Sequence[Compared], unit: str, negated: bool) -> str:
    """Return the value that came closest to its bar, or lay farthest beyond it."""
    best = max(judged, key=lambda compared: beyond_bar(part, compared) * (-1 if negated else 1))
    said_unit = f" {unit}" if unit else ""
    beyond = beyond_bar(part, best)
    state = " (held)" if negated and beyond >= 0 else " (reached)" if beyond >= 0 else ""
    if isinstance(part, Extremum):
        way = round(part.drop + beyond, 9)  # removes the rounding error of the difference
        return f", from its {part.of}, {apart(way, part.drop)} of {part.drop:g}{said_unit}{state}"
    bars = f"± {part.tolerance:g}" if isinstance(part, Plateau) else "…".join(f"{bar:g}" for bar in best.bars)
    value = apart(best.value, *best.bars)
    return f", {best.what}, {value} of {bars}{state}" if best.what else f" {value} of {bars}{said_unit}{state}"


def _longest_gap(one: Rehearsed, recording: Recording) -> float:
    """Return the longest time between two frames of a rule, s."""
    times = sorted(frame.time for frame, *_ in recording.judged_by(one.rule))
    return max((after - before for before, after in pairwise(times)), default=0.0)


def _most_notes(part: FramesSetAside, recording: Recording) -> int:
    """Return the largest number of frames set aside within the time span of a condition."""
    notes = [note for note in recording.notes if not part.reasons or note.reason in part.reasons]
    last = [(note.time - part.within_s, note.time) for note in notes]
    return max((sum(n.count for n in notes if begin <= n.time <= end) for begin, end in last), default=0)
