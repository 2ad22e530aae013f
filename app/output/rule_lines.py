"""Text lines on how the rules stand: the judged quantities, their bars, and the distances to these."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

from ...agent.decide import Condition, Standing, apart
from .pen import GAP, Column, Field, Pen, duration

_LEAST_LABEL = 12
"""Width to which the name of a rule may be shortened, in cells."""


def rule_lines(pen: Pen, standing: Sequence[Standing], height: int) -> list[Text]:
    """Return each rule's judged quantity, its bar and the distance to it, as far as there is room."""
    rows = [row for one in standing for row in _rule_rows(one)]
    if (room := max(height - 1, 1)) < len(rows):  # rules that may act come first
        rows = [row for one in sorted(standing, key=_rank) for row in _rule_rows(one)][:room]
    shown = sum(row.first for row in rows)
    title = "RULE" if shown == len(standing) else f"RULE ({shown} of {len(standing)})"
    if height == 1:
        return [line for row in rows[:1] for line in _short_line(pen, row)]
    for how in (True, False):
        columns = [
            Column(title, [r.label for r in rows], 8, right=False, most=20 if how else _LEAST_LABEL),
            Column("JUDGED", [r.judged + r.how * how for r in rows], 9, right=False),
            Column("BAR", [r.bar for r in rows], 7, right=False),
            Column("DISTANCE", [r.distance for r in rows], 10, right=False, styles=[r.style for r in rows]),
        ]
        if pen.fits(columns):
            lines = pen.table(columns, 1 + len(rows))
            break
    else:
        lines = [line for row in rows for line in _long_lines(pen, row)]
        if len(lines) > room:
            lines = [line for row in rows for line in _short_line(pen, row)]
        lines = [pen.line(title, "bold dim"), *lines]
    return lines[:height]


@dataclass(frozen=True, slots=True)
class _RuleRow:
    """One condition of a rule in words."""

    label: str
    first: bool
    judged: str
    how: str
    bar: str
    distance: str
    style: str


def _rank(one: Standing) -> int:
    return 0 if one.holds else 1 if one.followed and one.decisions_left > 0 else 2


def _long_lines(pen: Pen, row: _RuleRow) -> list[Text]:
    """Return a condition on one line if its label has room, otherwise on two."""
    room = pen.width - sum(GAP + len(pen.plain(text)) for text in (row.judged, row.bar, row.distance))
    if room >= min(_LEAST_LABEL, len(row.label)):
        return pen.flow([Field(pen.name(row.label, room) or " ", 11), *_fields(row)])
    return [*([pen.line(row.label)] if row.label else []), *pen.flow(_fields(row), 1, GAP)]


def _short_line(pen: Pen, row: _RuleRow) -> list[Text]:
    """Return a condition on one line, without fields that do not fit."""
    return pen.flow([Field(pen.name(row.label, _LEAST_LABEL), 8), *_fields(row)])


def _fields(row: _RuleRow) -> list[Field]:
    return [Field(row.judged, 9), Field(row.bar, 7), Field(row.distance, 10, row.style)]


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
        yield _RuleRow(label, True, "", "", "", state or "waits", style)
    for number, condition in enumerate(one.conditions):
        judged, bar, distance = _condition(condition)
        distance = distance if one.followed else ""
        said = ", ".join(filter(None, (state if number == 0 else "", distance)))
        how = f" ({condition.how})" if condition.how else ""
        yield _RuleRow("" if number else label, not number, judged, how, bar, said, style)


def _condition(one: Condition) -> tuple[str, str, str]:
    """Return the judged quantity of a condition, its bar, and the distance to it."""
    unit = f" {one.unit}" if one.unit else ""
    bar = f"{'not ' * one.negated}{one.bar}"
    what = f"{one.quantity}{one.what and f' {one.what}'}"
    if one.value is None or not math.isfinite(one.value):
        return what, bar, "not judged yet"
    beyond = -one.beyond if one.negated else one.beyond
    side = "past" if beyond >= 0 else "to go"
    if one.unit == "s":  # a silence
        return f"{what} {duration(one.value)}", bar, f"{duration(abs(beyond))} {side}"
    levels = [level for level in one.bars if math.isfinite(level)]
    sign = "+" if one.what.startswith(("change", "rate")) else ""
    value = apart(one.value, *levels, digits=4 if one.unit else 3, sign=sign)
    distance = f"{apart(abs(beyond), digits=2)}{unit} {side}" if math.isfinite(beyond) else ""
    return f"{what} {value}{unit}", bar, distance
