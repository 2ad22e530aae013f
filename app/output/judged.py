"""Finds what rules compared with their bars at each frame, by judging published frames again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...agent.decide import Compared, QuantityWatch, Rule, Rules, Watch
from ...agent.publish import Answered, Ended
from ...agent.types import Decision, Frame, SetAside


@dataclass(frozen=True, slots=True)
class Judgement:
    """A comparison by a rule at a frame that it followed."""

    rule: str
    part: int
    """Index of the condition in the rule, in the order of ``triggers_in``."""
    series: str
    """Series with its absorber, in words."""
    time: float
    """Time of the frame, Unix s."""
    compared: Compared | None
    """The comparison; None if the frame was left out, or if the window was not full."""


def decided(
    rules: Sequence[Rule],
    items: Iterable[Answered | SetAside | Ended],
    units: Mapping[str, str],
    judged: list[Judgement] | None = None,
) -> list[Decision]:
    """Return the decisions of rules on published data.

    Parameters
    ----------
    items : frames, notes and ends of runs in the order of publication
    units : units of the quantities, by name
    judged : receives the comparisons at each frame
    """
    judge, made = Rules(rules, units), list[Decision]()
    for item in items:
        if isinstance(item, Ended):
            judge.forget(item.run_uid)
        elif isinstance(item, SetAside):
            made += judge.note(item)
        else:
            # Before the call, since a decision may begin a stage with other watches.
            followed = judge.followed(item[0]) if judged is not None else ()
            made += judge(*item)
            if judged is not None:
                judged += _judgements(item[0], followed)
    return made


def series_of(frame: Frame) -> str:
    """Return the series of a frame, with its absorber."""
    return " ".join(filter(None, (frame.series, frame.element, frame.edge)))


def _judgements(frame: Frame, followed: Iterable[tuple[Rule, Watch]]) -> Iterator[Judgement]:
    series = series_of(frame)
    for rule, watch in followed:
        for number, part in enumerate(watch.parts()):
            if isinstance(part, QuantityWatch):
                compared = part.compared if part.judged and part.current else None
                yield Judgement(rule.name, number, series, frame.time, compared)
