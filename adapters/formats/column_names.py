"""Which columns of a file are energy, intensities or absorption: as named by the caller, else by their names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...agent.fields import usual

Columns = Mapping[str, "str | int | Sequence[str | int]"]
"""Names (or numbers, from 1) of columns by role; ``if`` may name several, which are summed."""

ROLES = ("energy", "i0", "it", "if", "ir", "mu", "norm", "reference")
SIGNALS = ("mu", "it", "if", "norm")

_AGENTS = {"ir": "iref", "if": "fluorescence", "norm": "normalised"}
"""The agent's words for roles that files call otherwise."""
_OF_FILES = {
    "energy": r"achieved_energy|energy_achieved|ev",
    "i0": r"(ion|ic)_?0",
    "it": r"(ion|ic)_?1",
    "ir": r"(ion|ic)_?2",
    "if": r"(ff|ge|sdd|vortex|lytle|pips)_?\d*",
    "norm": r"normtrans|normfluor|flat",
    "reference": r"murefer|normrefer",
}
"""Names that only files have: XDI's dictionary, SSRL's collector, Athena's exports."""
_ANGLE = re.compile(r"(mono_?)?(angle|bragg|theta|bragg_angle)")
_NO_ENERGY = re.compile(
    r".*(angle|theta|bragg|wavelength|lambda|time|clock|date|pixel|channel|step|index|temp).*|k|r|q|d"
)


class AmbiguousColumnError(ValueError):
    """A role that may be any of several columns, or a column that is not there."""


@dataclass(slots=True)
class ColumnChoice:
    """Places of the columns by role."""

    places: dict[str, list[int]] = field(default_factory=dict)
    doubts: dict[str, list[int]] = field(default_factory=dict)
    """Roles that several columns may be, none better than another."""
    notes: list[str] = field(default_factory=list)


def plain(label: str) -> tuple[str, str]:
    """A column's name and its unit, of a label such as ``Energy (eV)``.

    >>> plain("Energy [keV]"), plain("mu(E)"), plain("2)I0")
    (('Energy', 'keV'), ('mu', ''), ('I0', ''))
    """
    text = re.sub(r"^\d+\s*[)_]\s*(?=\D)", "", label.strip().strip("\"'").strip())
    parts = re.fullmatch(r"(.+?)\s*[(\[]\s*([^)\]]*?)\s*[)\]]", text)
    if not parts:
        return text, ""
    return parts[1], "" if parts[2].lower() in ("e", "k") else parts[2]


def choose(names: Sequence[str], wanted: Columns | None = None, element: str | None = None) -> ColumnChoice:
    """Find the columns of each role.

    Args:
        names: of the columns, in their order, without units; empty where a column has none.
        wanted: what the caller names. What it names of the signal leaves the other signals out.
        element: the absorber, for fluorescence columns that are named after it.

    Raises:
        AmbiguousColumnError: ``wanted`` names a role that is none, several columns of one, or one that is not there.
    """
    found = ColumnChoice()
    named = {role: [_place(role, item, names) for item in items] for role, items in asked(wanted).items()}
    found.places |= named
    given = [role for role in SIGNALS if role in named]
    taken = {place for places in named.values() for place in places}
    for role in ROLES:
        if role in named or (given and role in SIGNALS):
            continue
        if role in ("ir", "reference") and {"ir", "reference"} & named.keys():
            continue
        places = [place for place in _guess(role, names, element) if place not in taken]
        if role == "if":
            places = _summed(places, names, found.notes)
        if len(places) == 1 or (places and role == "if"):
            found.places[role] = places
        elif places:
            found.doubts[role] = places
    return found


def asked(wanted: Columns | None) -> dict[str, list[str | int]]:
    """What the caller names, by role.

    Raises:
        AmbiguousColumnError: a role that is none, or several columns for one that is not summed.
    """
    found: dict[str, list[str | int]] = {}
    for role, value in (wanted or {}).items():
        if role not in ROLES:
            raise AmbiguousColumnError(f"no role {role!r} in columns; expected {', '.join(ROLES)}")
        found[role] = [value] if isinstance(value, str | int) else list(value)
        if not found[role] or (len(found[role]) > 1 and role != "if"):
            raise AmbiguousColumnError(f"{len(found[role])} columns for {role}; expected one")
    return found


def angle(names: Sequence[str]) -> int | None:
    """The place of the monochromator's angle, where one column is named so."""
    places = [i for i, name in enumerate(names) if _ANGLE.fullmatch(_folded(name))]
    return places[0] if len(places) == 1 else None


def may_be_measured(name: str) -> bool:
    """Whether a column of this name may still hold energies or an absorption, of which it says nothing."""
    return not _NO_ENERGY.fullmatch(_folded(name))


def _guess(role: str, names: Sequence[str], element: str | None) -> list[int]:
    """Places of the columns that match the surest pattern of the role."""
    found = set(usual(_AGENTS.get(role, role), {name for name in names if name}))
    if role == "energy" and len(found) > 1:  # SSRL records what was asked for beside what was reached
        found = {name for name in found if not re.search(r"request|set|nominal", name, re.I)} or found
        found = {name for name in found if re.search(r"achieved", name, re.I)} or found
    own = _OF_FILES.get(role)
    if not found and own:
        found = {name for name in names if re.fullmatch(own, _folded(name))}
    if not found and role == "if" and element and element != "I":
        found = {name for name in names if re.fullmatch(rf"{element.lower()}_?\d+", _folded(name))}
    return [place for place, name in enumerate(names) if name in found]


def _summed(places: list[int], names: Sequence[str], notes: list[str]) -> list[int]:
    """Of a sum and its parts the sum alone; else all."""
    whole = [place for place in places if not re.search(r"\d$", names[place])]
    if whole and len(places) > len(whole):
        places = whole
    if len(places) > 1:
        notes.append(f"fluorescence is the sum of {', '.join(names[place] for place in places)}")
    return places


def _place(role: str, asked: str | int, names: Sequence[str]) -> int:
    found = [place for place, name in enumerate(names) if name == asked]
    found = found or [place for place, name in enumerate(names) if _folded(name) == _folded(str(asked)) and name]
    if not found and str(asked).strip().isdecimal() and 1 <= int(asked) <= len(names):
        found = [int(asked) - 1]
    if len(found) != 1:
        there = ", ".join(name or str(place + 1) for place, name in enumerate(names)) or "none"
        raise AmbiguousColumnError(f"{len(found) or 'no'} column {asked!r} for {role}; found the columns {there}")
    return found[0]


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
