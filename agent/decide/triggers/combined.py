"""Conditions made of conditions."""

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

    A frame with which one of them cannot be judged changes nothing, unless another one fails with it.
    """

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
    """A condition is known not to hold.

    Before it can be judged (no frame yet, or its window is not full) nothing is known, and this does not hold either.
    A frame with which the condition cannot be judged changes nothing. A condition that is not certain enough does not
    hold: the negation of "above 3.5 e with a probability of 0.9" is not "below 3.5 e".
    """

    kind: Literal["not"] = "not"
    """Name of this trigger."""
    of: Trigger
    """The condition, a trigger."""


class Then(Settings):
    """Several conditions have held one after the other; the last one holds now.

    A condition counts at a later frame than that at which the condition before it counted, also if it has held for
    longer, and only at a frame with which it is judged. Between two frames a condition counts as it begins to hold,
    as when no frame comes. The sequence begins anew when the last condition ends.
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
        """Take what happens between two frames: nothing is new but what begins with it."""
        begun = [watch.begun for watch in self.watches]
        for watch in self.watches:
            tell(watch)
        self._combine(time, [watch.begun > before for watch, before in zip(self.watches, begun, strict=True)])

    @abstractmethod
    def _combine(self, time: float, new: Sequence[bool]) -> None:
        """Judge the combination.

        Parameters
        ----------
        time : of the frame, the note or the silence, Unix s
        new : for each condition, whether it was judged with that
        """


class AllWatch(CombinedWatch):
    """Follows one series for :class:`AllOf`.

    The confidence is Bonferroni's lower bound or, while it does not hold, the probability of the least likely
    condition, which bounds it from above.
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
        """The reasons of all conditions that could be judged: while one fails, others may not have begun."""
        return " and ".join(watch.reason for watch in self.watches if watch.judged)


class AnyWatch(CombinedWatch):
    """Follows one series for :class:`AnyOf`.

    The confidence is that of the most certain condition or, while none holds, the sum of all, which bounds it from
    above.
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
        """The reasons of the conditions that hold or, if none does, of all."""
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
        """(time, confidence, reason) of each condition that has held, in order."""
        self._newest: float | None = None
        """Time of the newest frame, Unix s."""
        self._late = 0
        """Number of frames in a row that are older."""

    def frame(self, observed: Observed) -> None:
        """Take the next frame; the sequence begins anew if time went back."""
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
            self._held[-1] = time, before.confidence, before.reason  # it goes on

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
