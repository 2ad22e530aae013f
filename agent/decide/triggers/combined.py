"""Conditions made of conditions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ...types import SetAside, Settings
from ..observed import Observed
from .base import Evidence, Watch

if TYPE_CHECKING:
    from . import Trigger


class AllOf(Settings):
    """All of several conditions hold at once. A frame with which one of them cannot be judged changes nothing."""

    kind: Literal["all"] = "all"
    """Name of this trigger."""
    of: Annotated[tuple[Trigger, ...], Field(min_length=2)]
    """The conditions, each a trigger."""


class AnyOf(Settings):
    """At least one of several conditions holds."""

    kind: Literal["any"] = "any"
    """Name of this trigger."""
    of: Annotated[tuple[Trigger, ...], Field(min_length=2)]
    """The conditions, each a trigger."""


class NotOf(Settings):
    """A condition does not hold, as far as it can be judged: before its window is full nothing is known."""

    kind: Literal["not"] = "not"
    """Name of this trigger."""
    of: Trigger
    """The condition, a trigger."""


class Then(Settings):
    """Several conditions have held one after the other; the last one holds now.

    A condition counts at a frame after one at which the condition before it held. The sequence begins anew when the
    last one ends.
    """

    kind: Literal["then"] = "then"
    """Name of this trigger."""
    of: Annotated[tuple[Trigger, ...], Field(min_length=2)]
    """The conditions in their order, each a trigger."""
    within_s: float | None = Field(default=None, gt=0)
    """Longest time from the first condition, when it held last, to the last one, s, by the frames' own times; by
    default any."""


class CombinedWatch(Watch):
    """Passes on what it is given to the watches of its conditions, and combines them."""

    def __init__(self, watches: tuple[Watch, ...]) -> None:
        self.watches = watches
        self.judged = all(watch.judged for watch in watches)

    def frame(self, observed: Observed) -> None:
        """Take the next frame."""
        for watch in self.watches:
            watch.frame(observed)
        self.judged = all(watch.judged for watch in self.watches)
        self.current = all(watch.current for watch in self.watches)
        self._combine(observed.frame.time)

    def note(self, note: SetAside) -> None:
        """Take a note."""
        for watch in self.watches:
            watch.note(note)
        self._combine(note.time)

    def quiet(self, seconds: float, time: float) -> None:
        """Take the time without a frame."""
        for watch in self.watches:
            watch.quiet(seconds, time)
        self._combine(time)

    @property
    def evidence(self) -> Evidence:
        """The evidence of all conditions that hold."""
        return tuple(e for watch in self.watches if watch.holds for e in watch.evidence)

    def parts(self) -> Iterator[Watch]:
        """Yield this watch and those of its conditions."""
        yield self
        for watch in self.watches:
            yield from watch.parts()

    def _kept(self) -> list[Any]:
        return [watch.state() for watch in self.watches]

    def _keep_again(self, kept: list[Any]) -> None:
        for watch, part in zip(self.watches, kept, strict=True):
            watch.restore(part)

    @abstractmethod
    def _combine(self, time: float) -> None:
        """Judge the combination at a time, Unix s."""


class AllWatch(CombinedWatch):
    """Follows one series for :class:`AllOf`; the confidence is Bonferroni's lower bound."""

    def _combine(self, time: float) -> None:
        if not all(watch.current for watch in self.watches):
            return
        self.holds = all(watch.holds for watch in self.watches)
        self.confidence = max(0.0, 1 - sum(1 - watch.confidence for watch in self.watches))

    @property
    def reason(self) -> str:
        """The reasons of all conditions."""
        return " and ".join(watch.reason for watch in self.watches)


class AnyWatch(CombinedWatch):
    """Follows one series for :class:`AnyOf`."""

    def _combine(self, time: float) -> None:
        self.holds = any(watch.holds for watch in self.watches)
        self.confidence = max((watch.confidence for watch in self.watches if watch.holds), default=0.0)

    @property
    def reason(self) -> str:
        """The reasons of the conditions that hold."""
        return " and ".join(watch.reason for watch in self.watches if watch.holds)


class NotWatch(CombinedWatch):
    """Follows one series for :class:`NotOf`."""

    def _combine(self, time: float) -> None:
        watch = self.watches[0]
        if not watch.current:
            return
        self.holds = watch.judged and not watch.holds
        # Frames that are set aside, or do not come, are counted: that they are not is certain too.
        self.confidence = 1.0 if watch.confidence == 1 and not watch.holds else 1 - watch.confidence

    @property
    def reason(self) -> str:
        """The reason of the condition, negated."""
        return f"not ({self.watches[0].reason})"


class ThenWatch(CombinedWatch):
    """Follows one series for :class:`Then`."""

    def __init__(self, watches: tuple[Watch, ...], within_s: float | None) -> None:
        super().__init__(watches)
        self._within_s = within_s
        self._held: list[tuple[float, float, str]] = []
        """(time, confidence, reason) of each condition that has held, in order."""

    def _combine(self, time: float) -> None:
        if self.holds:
            self.holds = self.watches[-1].holds
            if not self.holds:
                self._held.clear()
            return
        if self._held and self._within_s is not None and time > self._held[0][0] + self._within_s:
            self._held.clear()
        following = self.watches[len(self._held)]
        if following.holds and not (self._held and time <= self._held[-1][0]):
            if following is self.watches[-1]:
                self.holds = True
                self.confidence = max(0.0, following.confidence - sum(1 - c for _, c, _ in self._held))
                return
            self._held.append((time, following.confidence, following.reason))
        elif self._held and (before := self.watches[len(self._held) - 1]).holds:
            self._held[-1] = time, before.confidence, before.reason  # it goes on

    @property
    def reason(self) -> str:
        """The reasons of the conditions in their order."""
        return ", then ".join([*(reason for *_, reason in self._held), self.watches[-1].reason])

    def _kept(self) -> list[Any]:
        return [super()._kept(), self._held]

    def _keep_again(self, kept: list[Any]) -> None:
        parts, held = kept
        super()._keep_again(parts)
        self._held = [(h[0], h[1], h[2]) for h in held]
