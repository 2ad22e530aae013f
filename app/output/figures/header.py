"""The texts above a picture: samples and times, results, decisions, and frames set aside."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import SubFigure

from ..recorder import Drawn, named
from .columns import Column, begun
from .style import AMBER, DARK, GREY, RED, short, wrapped

LINE = 0.185
"""Height of a line, inches."""
_LINES = 8
"""Largest number of kinds of decisions in the header."""
_CHARACTERS = 98
_SMALL = 0.05
"""Change below which values have three decimals."""

WORDS = {
    "OS": "mean oxidation state",
    "CN": "coordination (CN)",
    "OCN": "O coordination (OCN)",
    "mean_bond": "mean bond length",
    "MOOD": "O–O distance (MOOD)",
    "NNRS": "bond spread (NNRS)",
}
"""Names of descriptors in words."""
Line = tuple[str, str, float, int | None]
"""A line of the header: text, colour, size, and number of a decision."""
Kind = tuple[str, str, str, str]
"""A kind of decision: rule, action in words, status and sample."""


def kinds_of(columns: Sequence[Column]) -> dict[Kind, list[float]]:
    """Return the clock times of the decisions of each kind, in the order of time."""
    found: dict[Kind, list[float]] = {}
    made = [one for column in columns for one in column.decisions]
    for at, row in sorted(made, key=lambda one: one[0]):
        found.setdefault(_kind(row, len(columns) > 1), []).append(at)
    return found


def numbers_of(columns: Sequence[Column]) -> dict[str, int]:
    """Return the number of the kind of each decision, by its id."""
    kinds = {kind: number for number, kind in enumerate(kinds_of(columns), 1)}
    several = len(columns) > 1
    return {row["id"]: kinds[_kind(row, several)] for column in columns for _, row in column.decisions}


def _kind(row: Mapping[str, Any], several: bool) -> Kind:
    return row["rule"], action_of(row), row["status"], row.get("sample", "") if several else ""


def action_of(decision: Mapping[str, Any]) -> str:
    """Return the action of a decision in words; for ``set``, with signal and value."""
    if decision["action"] != "set":
        return decision["action"]
    args = json.loads(decision["args"])
    return f"set {args.get('signal')} to {args.get('value')}"


def headline(column: Column, drawn: Drawn, name: str, *, brief: bool = False) -> str:
    """Return the change of a descriptor from the first to the last familiar frame, in words."""
    values = column.values(f"{name}_mean")
    known = values[np.isfinite(values) & column.familiar]
    if not len(known):
        known = values[np.isfinite(values)]
    unit = f" {found}" if (found := drawn.descriptors.get(name, "")) else ""
    bare = name.removesuffix("_anchored")
    said = (bare if brief else WORDS.get(bare, bare)) + (" (anchored)" if name.endswith("_anchored") else "")
    if not len(known):
        return said
    digits = 3 if len(known) > 1 and abs(known[-1] - known[0]) < _SMALL else 2
    ends = [f"{value:.{digits}f}" for value in known[[0, -1]]]
    return f"{said}: {ends[0]}{unit}" if len(known) == 1 else f"{said}: {ends[0]} → {ends[1]}{unit}"


def lines_of(drawn: Drawn, columns: Sequence[Column]) -> list[Line]:
    """Return the lines of the header."""
    rows = [frame.row for frame in drawn.frames]
    edges = dict.fromkeys(" ".join(filter(None, (f.row["element"], f.edge))) for f in drawn.frames)
    about = named(*({**row, "element": ""} for row in rows))
    title = ", ".join(filter(None, (short(about, 56), *edges))) or "session of the agent"
    some = str(drawn.count) if len(rows) == drawn.count else f"{len(rows)} (at random) of {drawn.count}"
    count = f"{some} {'frame' if drawn.count == 1 else 'frames'}"
    lines: list[Line] = [(title, DARK, 13.0, None)]
    lines += [(f"{begun(drawn)},  {count},  model {short(', '.join(drawn.models) or 'agent', 40)}", GREY, 9.5, None)]
    if len(columns) > 1:
        lines.append(
            (
                "band: 90 % of repeats; black: judged line; green: truth; the bar at the side: all errors",
                GREY,
                9.5,
                None,
            )
        )
    kinds = kinds_of(columns)
    shown = len(kinds) if len(kinds) == _LINES + 1 else _LINES  # a single further line is shown instead of counted
    unit = columns[0].unit if columns else ""
    for number, ((rule, action, status, sample), times) in enumerate(list(kinds.items())[:shown], 1):
        when = (
            f"at {times[0]:.3g} {unit}"
            if len(times) == 1
            else f"{len(times)} times, {times[0]:.3g}–{times[-1]:.3g} {unit}"
        )
        of = f"{short(sample, 24)}, " if sample else ""
        lines.append((f"{of}{short(rule, 40)}: {short(action, 40)}, {status}, {when}", DARK, 9.5, number))
    if len(kinds) > shown:
        lines.append((f"and {len(kinds) - shown} more kinds of decisions", GREY, 9.5, None))
    if drawn.set_aside:
        said = ", ".join(
            f"{count} {reason}" for reason, count in sorted(drawn.set_aside.items(), key=lambda x: -x[1])
        )
        text = wrapped(f"× set aside: {said}", _CHARACTERS)
        lines += [(line, AMBER, 9.5, None) for line in text.split("\n")[:3]]
    return lines


def height_of(lines: Sequence[Line]) -> float:
    """Return the height of a header, inches."""
    return 0.22 + LINE * (len(lines) + 0.4)


def draw_header(part: SubFigure, lines: Sequence[Line], height: float) -> None:
    """Write the lines of a header."""
    at = height - 0.1
    for text, colour, size, number in lines:
        y, x = at / height, 0.012
        if number is not None:
            part.text(
                x + 0.004, y - 0.02 / height, str(number), fontsize=8, color="white", fontweight="bold", va="top",
                bbox={"boxstyle": "round,pad=0.18", "fc": RED, "ec": "none"},
            )  # fmt: skip
            x += 0.03
        part.text(x, y, text, color=colour, fontsize=size, va="top", fontweight="bold" if size > 12 else "normal")
        at -= LINE * (1.35 if size > 12 else 1.0)
