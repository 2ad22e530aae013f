"""What a session shows on a terminal: blocks of lines that share the height by their importance."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

from rich.text import Text

from ...agent.decide import Condition, Standing, apart
from .pen import GAP, Column, Field, Pen, beside, duration
from .recorder import NAME_COLUMNS, OOD_LIMIT, TEMPERATURE_FIELDS, VOLTAGE_FIELDS, Recorder, leading, named
from .trend import LEAST_ROWS, course, value_in

_WIDE = 132
"""Width from which the frames stand beside the course, in cells."""
_FRAMES_WIDTH = 78
"""Width of the frames beside the course, in cells."""
_AIRY = 32
"""Height from which blank lines part the blocks."""
_LATE_PERIODS = 5
"""Number of usual times between two frames after which a frame is missed."""
_LEAST_LATE_S = 10.0
"""Shortest time without a frame that is pointed out, s."""
_CLOCK = 8
"""Width of a time of day, in cells."""
_MOST_DIGITS = 4
"""Most decimals of a value that are shown."""
_STATUS_STYLES = {"acknowledged": "green", "rejected": "red", "expired": "red"}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A decision that waits for a person."""

    id: str
    """Beginning of its id that is enough to name it."""
    what: str
    """Its action with the arguments."""
    rule: str
    reason: str
    left_s: float
    """Time that remains, s."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a session at one moment, besides what its recorder keeps."""

    connected: bool = True
    """Whether documents can come from the source."""
    paused: str = ""
    """Why the experiment is paused, and by which rule; empty if it is not."""
    paused_s: float = 0.0
    halted: str = ""
    """Who made an emergency stop, and why."""
    waiting: Sequence[Waiting] = ()
    standing: Sequence[Standing] = ()
    points: tuple[int, int] | None = None
    """Number of points of the step scan in progress, and of the planned ones (0 if unknown)."""
    lost: Mapping[str, int] = field(default_factory=dict)
    """Number of documents that did not reach a receiver, or a file, by its name."""
    ending: bool = False
    """Whether the session answers what it has taken, and takes no more."""
    unanswered: int = 0
    """Number of documents that wait for their answer."""
    ended: bool = False


@dataclass(frozen=True)
class _Block:
    """Lines that belong together."""

    draw: Callable[[int], list[Text]]
    """Returns its lines, at most so many."""
    least: int
    """Number of lines without which it is worth nothing; those of all blocks are given first."""
    good: int
    """Number of lines that show what matters; given next."""
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
    """Whether the terminal has no other characters."""
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
            blocks.append(_Block(lambda n: _newest(pen, rows[-1], self, n), 1, 2, 3))
        if facts.standing:
            count = sum(max(len(s.conditions), 1) for s in facts.standing)
            blocks.append(_Block(lambda n: _rules(pen, facts.standing, n), 2, min(4, 1 + count), 1 + 2 * count))
        if decisions:
            shown = min(len(decisions), 8)
            blocks.append(_Block(lambda n: _decisions(pen, decisions, n), 2, 1 + min(shown, 2), 1 + shown))
        if rows and width >= _WIDE:
            frames = _Block(lambda n: self._beside(pen, facts, rows, n), 2, 14, 1 + max(len(rows), 22))
        else:
            frames = _Block(lambda n: _frames(pen, rows, n), 2 * bool(rows), min(7, 1 + len(rows)), 1 + len(rows))
        blocks.append(frames)
        if rows and width < _WIDE:
            blocks.append(_Block(lambda n: self._trend(pen, facts, rows, n), 0, 0, 12 * (height >= 28)))
        return _stacked(blocks, height)

    def _head(self, pen: Pen, rows: Sequence[Mapping[str, Any]]) -> Text:
        return pen.between(_named(pen, rows), time.strftime("%H:%M:%S"), "bold")

    def _state(self, pen: Pen, facts: Facts, rows: Sequence[Mapping[str, Any]]) -> list[Text]:
        """Return what the session does, the age of the last frame, and the progress."""
        word, style = _state_of(facts, bool(rows), self.recorder.running)
        age = None if self.recorder.frame_at is None else self.clock() - self.recorder.frame_at
        fields = [Field(word, 9, style)]
        if age is not None and not facts.ended:
            late = self.recorder.running and not (facts.paused or facts.ending) and age > _late_after(rows)
            text = f"! NO FRAME FOR {duration(age)}" if late else f"last frame {duration(age)} ago"
            fields.append(Field(text, 8, "bold yellow" if late else ""))
        if facts.ending and facts.unanswered and not facts.ended:
            fields.append(Field(f"{facts.unanswered} documents wait for their answer", 8))
        fields += self._progress(pen, facts)
        lines = pen.flow(fields, 2 if pen.width < 100 else 1)
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
        count = f"{frames} of {planned} frames" if planned else f"{frames} frame{'s' * (frames != 1)}"
        if planned and pen.width >= 78:
            count = f"{count} {pen.bar(frames / planned, min(max(pen.width - 66, 10), 40))}"
        fields = [Field(count, 7)]
        points, of = facts.points or (0, 0)
        if points:
            fields.append(Field(f"scan: {points} of {of or '?'} points", 6))
        fields.append(Field(f"running {duration(round(self.clock() - self.began))}", 1, "dim"))
        return fields

    def _beside(self, pen: Pen, facts: Facts, rows: Sequence[Mapping[str, Any]], height: int) -> list[Text]:
        """Return the course over the descriptors of the newest frame, with the frames beside them."""
        left = Pen(pen.width - _FRAMES_WIDTH - 2 * GAP, self.ascii)
        right = Pen(_FRAMES_WIDTH, self.ascii)
        descriptors = _descriptors(left, rows[-1], self.units)
        room = height - len(descriptors) - 1
        trend = self._trend(left, facts, rows, min(max(room, min(height, 10)), 16))
        under = [*([Text("")] if trend else []), *descriptors]
        both = [*trend, *under][:height]
        return beside(both, _frames(right, rows, height), left.width + 2 * GAP)

    def _trend(self, pen: Pen, facts: Facts, rows: Sequence[Mapping[str, Any]], height: int) -> list[Text]:
        """Return the course of the first judged quantity, or of the leading descriptor, in the newest series."""
        if height < LEAST_ROWS + 1:
            return []
        newest = rows[-1]
        judged = [c for s in facts.standing if s.followed for c in s.conditions if not c.what and c.bars]
        named_first = next((c.quantity for c in judged if math.isfinite(value_in(newest, c.quantity))), None)
        quantity = named_first or leading(newest)
        bars = [b for c in judged if c.quantity == quantity for b in c.bars if math.isfinite(b)]
        frames = [f.row for f in self.recorder.drawn().frames]
        same = ("sample", "element") if newest["sample"] else ("run_uid", "element")
        ours = [r for r in frames if all(r[name] == newest[name] for name in same)]
        points = sorted((r["time"], value) for r in ours if math.isfinite(value := value_in(r, quantity)))
        if len(points) < 3:
            return []
        unit = self.units.get(quantity, "")
        span = duration(points[-1][0] - points[0][0])
        said = f"{quantity}{unit and f', {unit}'} in {len(points)} frames over {span}"
        said += (
            f", with the bar{'s' * (len(set(bars)) > 1)} {', '.join(f'{b:g}' for b in dict.fromkeys(bars))}"
            * bool(bars)
        )
        lines = course(pen, points, list(dict.fromkeys(bars)), height - 1, _digits(newest, quantity))
        return [pen.line(said.upper() if not unit else said, "bold dim"), *lines] if lines else []


def _block(draw: Callable[[int], list[Text]], least: int, most: int | None = None) -> _Block:
    most = least if most is None else most
    return _Block(draw, least, min(most, least + 2), most)


def _stacked(blocks: Sequence[_Block], height: int) -> list[Text]:
    """Return the lines of blocks, of which each gets its least, then its good, then its largest height."""
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
    """Return what the newest frame is of; a long name of a sample or a file is shortened."""
    if not rows:
        return "xas-agent"
    newest = dict(rows[-1])
    rest = named({**newest, "sample": "", "file": ""})
    free = pen.width - _CLOCK - len(rest) - 3 * GAP
    for name in ("sample", "file"):
        newest[name] = pen.name(newest[name], max(free // (2 if newest["sample"] and newest["file"] else 1), 8))
    return named(newest) or "a frame without names"


def _state_of(facts: Facts, begun: bool, running: bool) -> tuple[str, str]:
    """Return the state of a session in a word, with its style."""
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
    """Return the time after the newest frame, s, from which the next one is missed."""
    times = [row["time"] for row in rows]
    steps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
    return max(_LATE_PERIODS * median(steps), _LEAST_LATE_S) if len(steps) > 2 else math.inf


def _requests(pen: Pen, waiting: Sequence[Waiting], height: int) -> list[Text]:
    """Return the decisions that wait for a person, each with the commands that answer it."""
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
    """Return what a person must know of losses, the worst first."""
    said: list[str] = []
    if not facts.connected and not facts.ended:
        said.append("SOURCE NOT CONNECTED: what it sends now is lost")
    if (failed := recorder.notifications_failed) > 0:  # elsewhere the log says so
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
    """Return alarms, on a line each; if there is room, on two."""
    style = "bold red"
    spare = height - len(alarms)
    lines: list[Text] = []
    for alarm in alarms:
        wrapped = pen.wrap(f"! {alarm}", 1 + (spare > 0), 2, style)
        spare -= len(wrapped) - 1
        lines += wrapped
    return lines[:height]


def _digits(row: Mapping[str, Any], name: str) -> int:
    """Return the decimals that the scatter of a frame justifies: two digits of it, at least two decimals."""
    scatter = row.get(f"{name.removesuffix('_anchored')}_sd_frame", math.nan)
    if not (isinstance(scatter, int | float) and math.isfinite(scatter) and scatter > 0):
        return 2
    return min(max(1 - math.floor(math.log10(scatter)), 2), _MOST_DIGITS)


def _number(value: Any, digits: int) -> str:
    """Return a number with these decimals; empty if there is none, and an exponent if it is very large."""
    if not isinstance(value, int | float):
        return ""
    return f"{value:.{digits}f}" if not math.isfinite(value) or abs(value) < 1e6 else f"{value:.3g}"


def _interval(row: Mapping[str, Any], name: str, digits: int = 2) -> str:
    lo, hi = row.get(f"{name}_lo"), row.get(f"{name}_hi")
    return "" if lo is None or hi is None else f"{_number(lo, digits)}…{_number(hi, digits)}"


def _newest(pen: Pen, row: Mapping[str, Any], screen: Screen, height: int) -> list[Text]:
    """Return the leading descriptor of the newest frame with both its errors, and how good the frame is."""
    first = leading(row)
    digits = _digits(row, first)
    unit = f" {screen.units[first]}" if screen.units.get(first) else ""
    fields: list[Field] = []
    if f"{first}_mean" in row:
        fields.append(Field(f"{first} {_number(row[f'{first}_mean'], digits)}{unit}", 9, "bold"))
    if f"{first}_sd_frame" in row:
        fields.append(Field(f"± {_number(row[f'{first}_sd_frame'], digits)}{unit} frame to frame", 7))
    if interval := _interval(row, first):
        fields.append(Field(f"90 %: {interval}{unit}", 6))
    anchored = f"{first}_anchored"
    if f"{anchored}_mean" in row:
        within = _interval(row, anchored)
        said = f"anchored {_number(row[f'{anchored}_mean'], digits)}{unit}{within and f' ({within})'}"
        fields.append(Field(said, 8, "bold"))
    score, unlike = row["ood_score"], not row["ood_score"] <= OOD_LIMIT
    said = f"! score {score:.2f}, limit {OOD_LIMIT:g}: UNLIKE WHAT THE MODEL KNOWS" if unlike else ""
    fields.append(Field(said or f"score {score:.2f} (limit {OOD_LIMIT:g})", 8, "bold red" if unlike else ""))
    fields.append(Field(f"{row['latency_ms']:.1f} ms{_usual(screen.recorder)}", 3))
    if reading := _reading(row):
        unit = screen.recorder.reading_units.get(reading, "")
        fields.append(Field(f"{reading} {_number(row[reading], 3)}{unit and f' {unit}'}", 4))
    if row["flags"]:
        fields.append(Field(f"! {row['flags']}", 5, "yellow"))
    return pen.flow(fields, height)


def _reading(row: Mapping[str, Any]) -> str:
    """Return the reading that is shown: the voltage, or the temperature; empty if a frame has none."""
    return next((name for name in (*VOLTAGE_FIELDS, *TEMPERATURE_FIELDS) if name in row), "")


def _usual(recorder: Recorder) -> str:
    latency = recorder.latency_ms()
    return f" (99 %: {latency['p99']:.3g} ms)" if "p99" in latency else ""


def _rules(pen: Pen, standing: Sequence[Standing], height: int) -> list[Text]:
    """Return what each rule judges, its bar and the distance to it, as far as there is room."""
    rows = [row for one in standing for row in _rule_rows(one)]
    if (room := max(height - 1, 1)) < len(rows):  # those that may act come first
        rows = [row for one in sorted(standing, key=_rank) for row in _rule_rows(one)][:room]
    shown = sum(row.first for row in rows)
    title = "RULE" if shown == len(standing) else f"RULE ({shown} of {len(standing)})"
    if height == 1 and rows:
        one = rows[0]
        return pen.flow(
            [Field(one.label, 5), Field(one.judged, 9), Field(one.bar, 7), Field(one.distance, 10, one.style)]
        )
    columns = [
        Column(title, [r.label for r in rows], 8, right=False, most=12),
        Column("JUDGED", [r.judged for r in rows], 9, right=False),
        Column("BAR", [r.bar for r in rows], 7, right=False),
        Column("DISTANCE", [r.distance for r in rows], 10, right=False, styles=[r.style for r in rows]),
    ]
    if pen.fits(columns):
        lines = pen.table(columns, 1 + len(rows))
    else:
        lines = [pen.line(title, "bold dim"), *(line for row in rows for line in _rule_line(pen, row))]
    return lines[:height]


@dataclass(frozen=True, slots=True)
class _RuleRow:
    """One condition of a rule in words."""

    label: str
    first: bool
    judged: str
    bar: str
    distance: str
    style: str


def _rank(one: Standing) -> int:
    return 0 if one.holds else 1 if one.followed and one.decisions_left > 0 else 2


def _rule_line(pen: Pen, row: _RuleRow) -> list[Text]:
    """Return a condition on one line, if its label has room, or on two."""
    fields = [Field(row.judged, 9), Field(row.bar, 7), Field(row.distance, 10, row.style)]
    label = row.label or " "
    room = pen.width - sum(GAP + len(pen.plain(f.text)) for f in fields)
    if room >= min(12, len(label)):
        return pen.flow([Field(pen.name(label, room), 11), *fields])
    return [*([pen.line(row.label)] if row.label else []), *pen.flow(fields, 1, GAP)]


def _rule_rows(one: Standing) -> Iterable[_RuleRow]:
    """Yield each condition of a rule in words."""
    label = f"{one.action}: {one.rule}"
    state, style = "", ""
    if one.decisions_left <= 0:
        state, style = "has decided", "green"
    elif not one.followed:
        state, style = "not in this stage", "dim"
    elif one.holds:
        state, style = "HOLDS", "bold yellow"
    if not one.conditions:
        yield _RuleRow(label, True, "", "", state or "waits", style)
    for number, condition in enumerate(one.conditions):
        judged, bar, distance = _condition(condition)
        said = ", ".join(filter(None, (state if number == 0 else "", distance)))
        yield _RuleRow("" if number else label, not number, judged, bar, said, style)


def _condition(one: Condition) -> tuple[str, str, str]:
    """Return what a condition judges, its bar, and the distance to it."""
    unit = f" {one.unit}" if one.unit else ""
    bar = f"{'not ' * one.negated}{one.bar}"
    what = f"{one.quantity}{one.what and f' {one.what}'}"
    if one.value is None or not math.isfinite(one.value):
        return what, bar, "not judged yet"
    finite = [b for b in one.bars if math.isfinite(b)]
    value = apart(one.value, *finite, digits=4, sign="+" if one.what.startswith(("change", "rate")) else "")
    beyond = -one.beyond if one.negated else one.beyond
    distance = f"{abs(beyond):.2g}{unit} {'past' if beyond >= 0 else 'to go'}" if math.isfinite(beyond) else ""
    return f"{what} {value}{unit}", bar, distance


def _decisions(pen: Pen, decisions: Sequence[Mapping[str, Any]], height: int) -> list[Text]:
    """Return the latest decisions, the newest first, with what became of them."""
    newest = sorted(decisions, key=lambda d: d["time"])[::-1][: height - 1]
    columns = [
        Column("DECIDED", [_clock(d["time"]) for d in newest], 6),
        Column("ACTION", [d["action"] for d in newest], 9, right=False),
        Column("STATUS", [d["status"] for d in newest], 10, False, None, [_status_style(d) for d in newest]),
        Column("WHY", [_why(d, pen.width) for d in newest], 8, right=False, most=20),
    ]
    return pen.table(columns, height)


def _status_style(decision: Mapping[str, Any]) -> str:
    return _STATUS_STYLES.get(decision["status"], "yellow")


def _why(decision: Mapping[str, Any], width: int) -> str:
    """Return the reasons of a decision and of its status; that of a failure first."""
    about = f"{decision['rule']}: {decision['reason']}"
    status = decision.get("status_reason", "")
    if not status:
        return about
    failed = decision["status"] in ("rejected", "expired")
    return f"{status} | {about}" if failed else f"{about} | {status}"


def _clock(at: float) -> str:
    """Return a time of day; empty for a time that has none."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return ""


def _frames(pen: Pen, rows: Sequence[Mapping[str, Any]], height: int) -> list[Text]:
    """Return the latest frames, the newest first."""
    shown = list(rows)[::-1][: max(height - 1, 0)]
    if not shown:
        return []
    first = leading(rows[-1])
    digits = max(_digits(row, first) for row in shown)
    reading = _reading(rows[-1])
    differ = [name for name in NAME_COLUMNS if len({row[name] for row in shown}) > 1]
    names = [named({name: row[name] if name in differ else "" for name in NAME_COLUMNS}) for row in shown]
    scores = [f"{row['ood_score']:.2f}{'!' * (not row['ood_score'] <= OOD_LIMIT)}" for row in shown]
    columns = [
        Column("FRAME", [str(row["seq_num"]) for row in shown], 9),
        Column(first, [_number(row.get(f"{first}_mean"), digits) for row in shown], 10, styles=["bold"] * len(shown)),
        Column("±", [_number(row.get(f"{first}_sd_frame"), digits) for row in shown], 6),
        Column("90 %", [_interval(row, first) for row in shown], 5),
        Column("ANCHORED", [_number(row.get(f"{first}_anchored_mean"), digits) for row in shown], 8),
        Column("SCORE", scores, 7, styles=["red" if s.endswith("!") else "" for s in scores]),
        Column("TIME", [_clock(row["time"]) for row in shown], 4),
        Column(reading, [_number(row.get(reading), 3) for row in shown], 3),
        Column("MS", [f"{row['latency_ms']:.1f}" for row in shown], 2),
        Column("MEASURED", names, 8, right=False, most=16),
    ]
    return pen.table([c for c in columns if any(c.cells)], height)


def _descriptors(pen: Pen, row: Mapping[str, Any], units: Mapping[str, str]) -> list[Text]:
    """Return all descriptors of a frame, with the scatter of repeats and the interval."""
    names = [
        key.removesuffix("_mean") for key in row if key.endswith("_mean") and key.removesuffix("mean") + "lo" in row
    ]
    columns = [
        Column("DESCRIPTOR", names, 9, right=False, most=16),
        Column("MEAN", [_number(row[f"{n}_mean"], _digits(row, n)) for n in names], 10),
        Column("±", [_number(row.get(f"{n}_sd_frame"), _digits(row, n)) for n in names], 6),
        Column("90 %", [_interval(row, n) for n in names], 8),
        Column("UNIT", [units.get(n, "") for n in names], 5, right=False),
    ]
    return pen.table([c for c in columns if any(c.cells)], 1 + len(names))
