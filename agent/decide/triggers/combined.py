"""Conditions that combine other conditions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ...types import SetAside, Settings
from ..observed import Observed
from .base import MAX_LATE_FRAMES, Evidence, Watch

if TYPE_CHECKING:
    from . import Trigger


class AllOf(Settings):
    """All of several conditions hold at once.

    A frame that leaves one of them unjudged changes nothing, unless it makes another one fail.
    """

    kind: Literal["all"] = "all"
    """Name of this trigger."""
    of: Annotated[tuple[Trigger, ...], Field(min_length=2)]
    """The combined conditions, each a trigger."""


class AnyOf(Settings):
    """At least one of several conditions holds."""

    kind: Literal["any"] = "any"
    """Name of this trigger."""
    of: Annotated[tuple[Trigger, ...], Field(min_length=2)]
    """The combined conditions, each a trigger."""


class NotOf(Settings):
    """A condition is known not to hold.

    Until the condition can be judged (no frame has come, or its window is not full), its negation does not hold
    either. A frame that leaves the condition unjudged changes nothing. A condition that is not certain enough does
    not hold: the negation of "above 3.5 e with a probability of 0.9" is not "below 3.5 e".
    """

    kind: Literal["not"] = "not"
    """Name of this trigger."""
    of: Trigger
    """The negated condition, a trigger."""


class Then(Settings):
    """Several conditions have held one after the other; the last one holds now.

    A condition counts only at a frame that judges it and that is later than the frame at which the condition before
    it counted, even if it has held for longer. Between two frames, for instance when no frame comes, a condition
    counts only when it begins to hold. The sequence begins anew when the last condition ends.
    """

    kind: Literal["then"] = "then"
    """Name of this trigger."""
    of: Annotated[tuple[Trigger, ...], Field(min_length=2)]
    """The conditions in their order, each a trigger."""
    within_s: float | None = Field(default=None, gt=0)
    """Longest time between the last frame at which the first condition held and the last condition, s, by the frames'
    own times; by default any time."""


class CombinedWatch(Watch):
    """Passes frames, notes and silences to the watches of its conditions, and combines their judgements."""

    def __init__(self, watches: tuple[Watch, ...]) -> None:
        self.watches = watches
        self.judged = all(watch.judged for watch in watches)

    def frame(self, observed: Observed) -> None:
        """Take the next frame."""
        for watch in self.watches:
            watch.frame(observed)
        self._combine(observed.frame.time, [watch.current for watch in self.watches])

    def note(self, note: SetAside) -> None:
        """Take a note."""
        self._between(note.time, lambda watch: watch.note(note))

    def quiet(self, seconds: float, time: float) -> None:
        """Take the time without a frame."""
        self._between(time, lambda watch: watch.quiet(seconds, time))

    @property
    def evidence(self) -> Evidence:
        """The evidence of all conditions that hold."""
        return tuple(e for watch in self.watches if watch.holds for e in watch.evidence)

    @property
    def args(self) -> dict[str, Any]:
        """The arguments of all conditions that hold."""
        return {key: value for watch in self.watches if watch.holds for key, value in watch.args.items()}

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

    def _between(self, time: float, tell: Callable[[Watch], None]) -> None:
        """Handle an event between two frames; only a condition that begins to hold with it is new."""
        begun = [watch.begun for watch in self.watches]
        for watch in self.watches:
            tell(watch)
        self._combine(time, [watch.begun > before for watch, before in zip(self.watches, begun, strict=True)])

    @abstractmethod
    def _combine(self, time: float, new: Sequence[bool]) -> None:
        """Judge the combination.

        Parameters
        ----------
        time : time of the frame, the note or the silence, Unix s
        new : for each condition, whether that event judged it
        """


class AllWatch(CombinedWatch):
    """Follows one series for :class:`AllOf`.

    The confidence is Bonferroni's lower bound while the combination holds. Otherwise it is the probability of the
    least likely condition, an upper bound.
    """

    def _combine(self, time: float, new: Sequence[bool]) -> None:
        watches = self.watches
        fails = any(watch.judged and watch.current and not watch.holds for watch in watches)
        self.judged = all(watch.judged for watch in watches) or fails
        self.current = all(watch.current for watch in watches) or fails
        if not self.current:
            return
        self.holds = all(watch.holds for watch in watches)
        if self.holds:
            self.confidence = max(0.0, 1 - sum(1 - watch.confidence for watch in watches))
        else:
            self.confidence = min(watch.confidence for watch in watches if not watch.holds)

    @property
    def reason(self) -> str:
        """The reasons of all conditions that have been judged; if one fails, others may not have begun."""
        return " and ".join(watch.reason for watch in self.watches if watch.judged)


class AnyWatch(CombinedWatch):
    """Follows one series for :class:`AnyOf`.

    The confidence is that of the most certain condition. While none holds it is the sum over all, an upper bound.
    """

    def _combine(self, time: float, new: Sequence[bool]) -> None:
        watches = self.watches
        self.judged = all(watch.judged for watch in watches) or any(watch.holds for watch in watches)
        self.current = all(watch.current for watch in watches) or any(w.current and w.holds for w in watches)
        self.holds = any(watch.holds for watch in watches)
        if self.holds:
            self.confidence = max(watch.confidence for watch in watches if watch.holds)
        else:
            self.confidence = min(1.0, sum(watch.confidence for watch in watches))

    @property
    def reason(self) -> str:
        """The reasons of the conditions that hold; if none holds, the reasons of all."""
        return " and ".join(watch.reason for watch in self.watches if watch.holds or not self.holds)


class NotWatch(CombinedWatch):
    """Follows one series for :class:`NotOf`."""

    def _combine(self, time: float, new: Sequence[bool]) -> None:
        [watch] = self.watches
        self.judged, self.current = watch.judged, watch.current
        if not watch.judged:
            self.holds = False
        elif watch.current:
            self.holds = not watch.holds
            self.confidence = 1 - watch.confidence

    @property
    def evidence(self) -> Evidence:
        """The evidence of the condition."""
        return self.watches[0].evidence

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
        """Time, confidence and reason of each condition that has held, in order."""
        self._newest: float | None = None
        """Time of the newest frame, Unix s."""
        self._late = 0
        """Number of successive frames that are older than the newest one."""

    def frame(self, observed: Observed) -> None:
        """Take the next frame; the sequence begins anew if time has gone back."""
        time = observed.frame.time
        self._late = self._late + 1 if self._newest is not None and time < self._newest else 0
        if self._late >= MAX_LATE_FRAMES:
            self._held.clear()
            self._late = 0
        if not self._late:
            self._newest = time
        super().frame(observed)

    def _combine(self, time: float, new: Sequence[bool]) -> None:
        self.judged = all(watch.judged for watch in self.watches)
        self.current = all(watch.current for watch in self.watches)
        if self.holds:
            self.holds = self.watches[-1].holds
            if self.holds:
                return
            self._held.clear()
        self.confidence = 0.0
        if self._late:
            return
        if self._held and self._within_s is not None and time > self._held[0][0] + self._within_s:
            self._held.clear()
        number = len(self._held)
        following = self.watches[number]
        if following.holds and new[number]:
            if following is self.watches[-1]:
                self.confidence = max(0.0, following.confidence - sum(1 - c for _, c, _ in self._held))
                self.holds = True
                return
            self._held.append((time, following.confidence, following.reason))
        elif number and new[number - 1] and (before := self.watches[number - 1]).holds:
            self._held[-1] = time, before.confidence, before.reason  # the condition still holds

    @property
    def reason(self) -> str:
        """The reasons of the conditions in their order."""
        return ", then ".join([*(reason for *_, reason in self._held), self.watches[-1].reason])

    def _kept(self) -> list[Any]:
        return [super()._kept(), self._held, self._newest, self._late]

    def _keep_again(self, kept: list[Any]) -> None:
        parts, held, self._newest, self._late = kept
        super()._keep_again(parts)
        self._held = [(h[0], h[1], h[2]) for h in held]
