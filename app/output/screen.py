"""The screen of a session: blocks of lines that share the height of the terminal by importance."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

from rich.text import Text

from ...agent.decide import Standing
from ...wording import counted
from .frame_lines import decision_lines, descriptor_lines, digits_of, frame_lines, newest_lines
from .pen import GAP, Field, Pen, beside, duration
from .recorder import OOD_LIMIT, Recorder, leading, named
from .rule_lines import rule_lines
from .trend import LEAST_ROWS, course, value_in

_WIDE = 132
"""Width at which the frames stand beside the course, in cells."""
_FRAMES_WIDTH = 78
"""Width of the frames beside the course, in cells."""
_BACKLOG = 100
"""Number of waiting documents above which the screen of a running session mentions them."""
_AIRY = 32
"""Height at which blank lines separate the blocks."""
_LATE_PERIODS = 5
"""Number of usual periods without a frame after which a frame counts as late."""
_LEAST_LATE_S = 10.0
"""Shortest time without a frame that the screen mentions, s."""
_CLOCK = 8
"""Width of a time of day, in cells."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A decision that waits for a person."""

    id: str
    """Prefix of its id that is long enough to identify it."""
    what: str
    """Its action with arguments."""
    rule: str
    reason: str
    left_s: float
    """Time left, s."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts on a session at one moment, besides the data of its recorder."""

    connected: bool = True
    """Whether documents can come from the source."""
    paused: str = ""
    """Why the experiment is paused, and by which rule; empty if it is not."""
    paused_s: float = 0.0
    halted: str = ""
    """Who made an emergency stop, and why; empty if nobody did."""
    waiting: Sequence[Waiting] = ()
    standing: Sequence[Standing] = ()
    points: tuple[int, int] | None = None
    """Number of points of the step scan in progress, and its planned number (0 if unknown)."""
    lost: Mapping[str, int] = field(default_factory=dict)
    """Number of documents that did not reach a receiver or file, by its name."""
    ending: bool = False
    """Whether the session only answers documents already taken, and takes no more."""
    unanswered: int = 0
    """Number of documents that wait for an answer."""
    stuck_s: float = 0.0
    """Time without progress of the agent, s; 0 if it works normally."""
    dashboard: str = ""
    """Address of the dashboard; empty if there is none."""
    ended: bool = False


@dataclass(frozen=True)
class _Block:
    """Lines that belong together."""

    draw: Callable[[int], list[Text]]
    """Returns its lines, up to the given number."""
    least: int
    """Smallest useful number of lines; every block receives this first."""
    good: int
    """Number of lines that show the essentials; distributed next."""
    most: int


@dataclass
class Screen:
    """Composes the live view of a session for a terminal of any size.

    Parameters
    ----------
    recorder : Recorder
    planned : int or None
        Expected number of frames.
    units : mapping of str to str
        Units of the quantities, by name.
    """

    recorder: Recorder
    planned: int | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    ascii: bool = False
    """Whether the terminal supports only ASCII characters."""
    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock()

    def lines(self, facts: Facts, width: int, height: int) -> list[Text]:
        """Return at most ``height`` lines of at most ``width`` cells."""
        pen = Pen(width, self.ascii)
        with self.recorder.lock:
            rows = list(self.recorder.latest)
            decisions = list(self.recorder.latest_decisions.values())
            alarms = _alarms(self.recorder, facts)
        head = [self._head(pen, rows), *self._state(pen, facts, rows)]
        blocks = [
            _block(lambda n: head[:n], len(head)),
            _block(
                lambda n: _requests(pen, facts.waiting, n), min(2 * len(facts.waiting), 2), 2 * len(facts.waiting)
            ),
            _block(lambda n: _said(pen, alarms, n), min(len(alarms), 2), len(alarms)),
        ]
        if rows:
            blocks.append(_Block(lambda n: newest_lines(pen, rows[-1], self.units, self.recorder, n), 1, 2, 3))
        if facts.standing:
            count = sum(max(len(s.conditions), 1) for s in facts.standing)
            blocks.append(_Block(lambda n: rule_lines(pen, facts.standing, n), 2, min(4, 1 + count), 1 + 2 * count))
        if decisions:
            shown = min(len(decisions), 8)
            blocks.append(_Block(lambda n: decision_lines(pen, decisions, n), 2, 1 + min(shown, 2), 1 + shown))
        if facts.dashboard and not facts.ended:  # its line in the log soon scrolls away
            blocks.append(_Block(lambda n: [pen.line(f"dashboard  {facts.dashboard}", "dim")], 0, 1, 1))
        if rows and width >= _WIDE:
            frames = _Block(lambda n: self._beside(pen, facts, rows, n), 2, 14, 1 + max(len(rows), 22))
        else:
            frames = _Block(lambda n: frame_lines(pen, rows, n), 2 * bool(rows), min(7, 1 + len(rows)), 1 + len(rows))
        blocks.append(frames)
        if rows and width < _WIDE:
            blocks.append(_Block(lambda n: self._trend(pen, facts, rows, n), 0, 0, 12 * (height >= 28)))
        return _stacked(blocks, height)

    def _head(self, pen: Pen, rows: Sequence[Mapping[str, Any]]) -> Text:
        return pen.between(_named(pen, rows), time.strftime("%H:%M:%S"), "bold")

    def _state(self, pen: Pen, facts: Facts, rows: Sequence[Mapping[str, Any]]) -> list[Text]:
        """Return the state of the session, the age of the last frame, and the progress."""
        word, style = _state_of(facts, bool(rows), self.recorder.running)
        age = None if self.recorder.frame_at is None else self.clock() - self.recorder.frame_at
        fields = [Field(word, 9, style)]
        if age is not None and not facts.ended:
            late = self.recorder.running and not (facts.paused or facts.ending) and age > _late_after(rows)
            text = f"! NO FRAME FOR {duration(age)}" if late else f"last frame {duration(age)} ago"
            fields.append(Field(text, 8, "bold yellow" if late else ""))
        if facts.unanswered > (0 if facts.ending else _BACKLOG) and not facts.ended:
            fields.append(Field(f"{counted(facts.unanswered, 'document waits', 'documents wait')} for an answer", 8))
        fields += self._progress(pen, facts)
        lines, without_time = pen.flow(fields, 2), pen.flow(fields[:-1], 2)
        lines = without_time if len(without_time) < len(lines) else lines
        if facts.halted:
            lines += pen.wrap(facts.halted, 2, 2, "bold red")
            lines.append(pen.line("to end it: xas-agent release", "bold"))
        if facts.paused:
            lines += pen.wrap(f"paused {duration(facts.paused_s)} ago {facts.paused}", 2, 2, "bold yellow")
            if not facts.halted and not facts.ended:
                lines.append(pen.line("to go on: xas-agent resume", "bold"))
        return lines

    def _progress(self, pen: Pen, facts: Facts) -> list[Field]:
        frames, planned = self.recorder.frames, self.planned
        count = f"{frames} of {planned} frames" if planned else counted(frames, "frame")
        if planned and pen.width >= 78:
            count = f"{count} {pen.bar(frames / planned, min(max(pen.width - 66, 10), 40))}"
        fields = [Field(count, 7)]
        if (samples := len(self.recorder.samples)) > 1:
            fields.append(Field(f"{samples} samples", 4))
        points, of = facts.points or (0, 0)
        if points:
            fields.append(Field(f"scan: {points} of {of or '?'} points", 6))
        fields.append(Field(f"running {duration(round(self.clock() - self.began))}", 1, "dim"))
        return fields

    def _beside(self, pen: Pen, facts: Facts, rows: Sequence[Mapping[str, Any]], height: int) -> list[Text]:
        """Return the course above the descriptors of the newest frame, with the frames beside them."""
        left = Pen(pen.width - _FRAMES_WIDTH - 2 * GAP, self.ascii)
        right = Pen(_FRAMES_WIDTH, self.ascii)
        descriptors = descriptor_lines(left, rows[-1], self.units, self.recorder.descriptors)
        room = height - len(descriptors) - 1
        trend = self._trend(left, facts, rows, min(max(room, min(height, 10)), 16))
        under = [*([Text("")] if trend else []), *descriptors]
        both = [*trend, *under][:height]
        return beside(both, frame_lines(right, rows, height), left.width + 2 * GAP)

    def _trend(self, pen: Pen, facts: Facts, rows: Sequence[Mapping[str, Any]], height: int) -> list[Text]:
        """Return the course of a judged quantity or of the leading descriptor, for the newest frame's series."""
        if height < LEAST_ROWS + 1:
            return []
        newest = rows[-1]
        judged = [c for s in facts.standing for c in s.conditions if not c.what and c.bars]
        quantity = _drawn(newest, [c.quantity for c in judged])
        bars = list(dict.fromkeys(b for c in judged if c.quantity == quantity for b in c.bars if math.isfinite(b)))
        same = ("sample", "element") if newest["sample"] else ("run_uid", "element")
        ours = [f.row for f in self.recorder.drawn().frames if all(f.row[name] == newest[name] for name in same)]
        known = ours if quantity == "ood_score" else [r for r in ours if r["ood_score"] <= OOD_LIMIT]
        points = sorted((r["time"], value) for r in known if math.isfinite(value := value_in(r, quantity)))
        lines = course(pen, points, bars, height - 1, digits_of(newest, quantity)) if len(points) > 2 else []
        if not lines:
            return []
        said = f"{quantity} in {len(points)} frames over {duration(points[-1][0] - points[0][0])}"
        said += f", {len(ours) - len(known)} unlike ones left out" if len(ours) > len(known) else ""
        said += f", bar{'s' * (len(bars) > 1)} {', '.join(f'{bar:g}' for bar in bars)}" if bars else ""
        return [pen.line(said, "bold dim"), *lines]


def _drawn(newest: Mapping[str, Any], judged: Sequence[str]) -> str:
    """Return the quantity of the course: the leading descriptor, in the form that a rule judges if there is one."""
    first = leading(newest)
    known = [name for name in judged if math.isfinite(value_in(newest, name))]
    of_first = [name for name in known if name == first or name.startswith(f"{first}_")]
    return next(iter([*of_first, *known]), first)


def _block(draw: Callable[[int], list[Text]], least: int, most: int | None = None) -> _Block:
    most = least if most is None else most
    return _Block(draw, least, min(most, least + 2), most)


def _stacked(blocks: Sequence[_Block], height: int) -> list[Text]:
    """Return the lines of blocks; the blocks receive first their least, then their good, then their full height."""
    blocks = [block for block in blocks if block.most]
    airy = height >= _AIRY
    given = [0] * len(blocks)
    room = height - (len(blocks) - 1 if airy else 0)
    for wanted in ([b.least for b in blocks], [b.good for b in blocks], [b.most for b in blocks]):
        for k, rows in enumerate(wanted):
            more = max(min(rows - given[k], room), 0)
            given[k] += more
            room -= more
    lines: list[Text] = []
    for block, rows in zip(blocks, given, strict=True):
        drawn = block.draw(rows)[:rows] if rows else []
        lines += [*([Text("", end="")] if airy and lines and drawn else []), *drawn]
    return lines[:height]


def _named(pen: Pen, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the sample and scan of the newest frame; a long name is shortened."""
    if not rows:
        return "xas-agent"
    newest = dict(rows[-1])
    rest = named({**newest, "sample": "", "file": ""})
    free = pen.width - _CLOCK - len(rest) - 3 * GAP
    for name in ("sample", "file"):
        newest[name] = pen.name(newest[name], max(free // (2 if newest["sample"] and newest["file"] else 1), 8))
    return named(newest) or "a frame without names"


def _state_of(facts: Facts, begun: bool, running: bool) -> tuple[str, str]:
    """Return the state of a session in one word, with its style."""
    if facts.ended:
        return "ENDED", "bold"
    if facts.halted:
        return "EMERGENCY STOP", "bold reverse red"
    if facts.paused:
        return "PAUSED", "bold reverse"
    if not facts.connected:
        return "NOT CONNECTED", "bold reverse red"
    if facts.ending:
        return "ENDING", "bold"
    if begun:
        return ("MEASURING", "bold green") if running else ("BETWEEN RUNS", "bold")
    return "WAITING for the first frame", "bold"


def _late_after(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the time after the newest frame, s, at which the next one counts as late."""
    times = [row["time"] for row in rows]
    steps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
    return max(_LATE_PERIODS * median(steps), _LEAST_LATE_S) if len(steps) > 2 else math.inf


def _requests(pen: Pen, waiting: Sequence[Waiting], height: int) -> list[Text]:
    """Return the decisions that wait for a person, with the commands that answer them."""
    lines: list[Text] = []
    for number, one in enumerate(waiting):
        if len(lines) + 2 > height:
            more = f"and {len(waiting) - number} more: xas-agent pending"
            return [*lines[: height - 1], pen.line(more, "bold yellow")]
        left = duration(max(math.ceil(one.left_s), 0)).replace(".0 s", " s")
        lines.append(pen.line(f"? {one.what} by {one.rule} WAITS {left} FOR YOU: {one.reason}", "bold yellow"))
        commands = [
            Field(f"xas-agent approve {one.id}", 2, "bold"),
            Field(f"or  xas-agent reject {one.id}", 1, "bold"),
        ]
        lines += pen.flow(commands, 1, 2)
    return lines


def _alarms(recorder: Recorder, facts: Facts) -> list[str]:
    """Return the losses that a person must know of, the worst first."""
    said: list[str] = []
    if not facts.connected and not facts.ended:
        said.append("SOURCE NOT CONNECTED: what it sends now is lost")
    if facts.stuck_s and not facts.ended:
        said.append(f"THE AGENT HAS MADE NO PROGRESS FOR {duration(facts.stuck_s)}")
    if (failed := recorder.notifications_failed) > 0:  # with other destinations the log reports it
        said.append(f"{failed} NOTIFICATION{'S' * (failed > 1)} FAILED, the latest: {recorder.notification_failure}")
    if lost := {name: count for name, count in facts.lost.items() if count}:
        said.append(f"DOCUMENTS LOST: {_counted(lost)}")
    if recorder.gaps:
        said.append(f"gaps: {_counted(recorder.gaps)}")
    if recorder.set_aside:
        count = sum(recorder.set_aside.values())
        said.append(f"{count} frame{'s' * (count > 1)} set aside: {_counted(recorder.set_aside)}")
    return said


def _counted(counts: Mapping[str, int]) -> str:
    """Return counts in words, the largest first.

    >>> _counted({"late": 1, "I0 dropped": 3})
    '3 I0 dropped, 1 late'
    """
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _said(pen: Pen, alarms: Sequence[str], height: int) -> list[Text]:
    """Return alarms on one line each, or on two if there is room."""
    style = "bold red"
    spare = height - len(alarms)
    lines: list[Text] = []
    for alarm in alarms:
        wrapped = pen.wrap(f"! {alarm}", 1 + (spare > 0), 2, style)
        spare -= len(wrapped) - 1
        lines += wrapped
    return lines[:height]
