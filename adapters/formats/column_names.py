"""Finds the columns of energy, intensities and absorption in a file: as the caller names them, or by their names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...agent.fields import SYNONYMS, UnknownRoleError, element_channels, match_synonyms, plain_name, role_of
from .energy import spacing_in_angstrom

Columns = Mapping[str, "str | int | Sequence[str | int]"]
"""Names or numbers (from 1) of columns by role; ``fluorescence`` may name several, which are summed.

``d_spacing`` is not a role: its value is the d spacing of the monochromator's crystal, Å, with which angles are
converted to energies.
"""

D_SPACING = "d_spacing"

ROLES = tuple(SYNONYMS)
SIGNALS = ("mu", "it", "fluorescence", "normalised")

_ANGLE = re.compile(r"(mono_?)?(angle|bragg|theta|bragg_angle)")
_NO_ENERGY = re.compile(
    r"(?!.*energy).*(angle|theta|bragg|wavelength|lambda|time|clock|date|pixel|channel|step|index|temp).*|k|r|q|d"
)


class AmbiguousColumnError(ValueError):
    """Several columns match a role, or a named column or role does not exist."""


@dataclass(slots=True)
class ColumnChoice:
    """Indices of the columns by role."""

    places: dict[str, list[int]] = field(default_factory=dict)
    doubts: dict[str, list[int]] = field(default_factory=dict)
    """Roles that several columns match equally well."""
    notes: list[str] = field(default_factory=list)


def split_label(label: str) -> tuple[str, str]:
    """Return the name and the unit in a column's label such as ``Energy (eV)``.

    >>> split_label("Energy [keV]"), split_label("mu(E)"), split_label("2)I0"), split_label("log(I0/It)")
    (('Energy', 'keV'), ('mu', ''), ('I0', ''), ('log(I0/It)', ''))
    """
    text = re.sub(r"^\d+\s*[)_]\s*(?=\D)", "", label.strip().strip("\"'").strip())
    parts = re.fullmatch(r"(.+?)\s*[(\[]\s*([^)\]]*?)\s*[)\]]", text)
    if not parts or re.match(r"(log|ln)\s*\(", text, re.I):
        return text, ""
    return parts[1], "" if parts[2].lower() in ("e", "k") else parts[2]


def choose_columns(names: Sequence[str], wanted: Columns | None = None, element: str | None = None) -> ColumnChoice:
    """Find the columns of each role.

    Parameters
    ----------
    names : sequence of str
        Names of the columns in their order, without units; empty for a column without a name.
    wanted : mapping, optional
        Columns that the caller names. If it names a signal, the other signals are not searched.
    element : str, optional
        Symbol of the absorber, for fluorescence columns that are named after it.

    Returns
    -------
    ColumnChoice

    Raises
    ------
    AmbiguousColumnError
        ``wanted`` contains an unknown role, several columns for one role, or a column that does not exist.
    """
    choice = ColumnChoice()
    named = {role: [_place(role, column, names) for column in columns] for role, columns in by_role(wanted).items()}
    choice.places |= named
    given = [role for role in SIGNALS if role in named]
    taken = {place for places in named.values() for place in places}
    for role in ROLES:
        if role in named or (given and role in SIGNALS):
            continue
        if role in ("iref", "reference") and {"iref", "reference"} & named.keys():
            continue
        places = [place for place in _guess(role, names, element) if place not in taken]
        if role == "fluorescence":
            places = _summed(places, names, choice.notes)
        if len(places) == 1 or (places and role == "fluorescence"):
            choice.places[role] = places
        elif places:
            choice.doubts[role] = places
    return choice


def by_role(wanted: Columns | None) -> dict[str, list[str | int]]:
    """Return the columns that the caller names, by role; other spellings of a role, such as ``if``, are resolved.

    Raises
    ------
    AmbiguousColumnError
        A role is unknown, is given in two spellings, or has several columns that are not summed; or the d spacing is
        not a length.
    """
    columns: dict[str, list[str | int]] = {}
    given_spacing(wanted)
    for word, value in (wanted or {}).items():
        if word == D_SPACING:
            continue
        try:
            role = role_of(word)
        except UnknownRoleError as error:
            raise AmbiguousColumnError(f"{error}") from None
        if role in columns:
            raise AmbiguousColumnError(f"the role {role} twice, once as {word!r}; expected one spelling")
        columns[role] = [value] if isinstance(value, str | int) else list(value)
        if not columns[role] or (len(columns[role]) > 1 and role != "fluorescence"):
            raise AmbiguousColumnError(f"{len(columns[role])} columns for {word}; expected one")
    return columns


def given_spacing(wanted: Columns | None) -> str:
    """Return the d spacing that the caller gives, as a text in Å; empty if none is given.

    Raises
    ------
    AmbiguousColumnError
        It is not the length of a crystal's d spacing.
    """
    given = (wanted or {}).get(D_SPACING, "")
    parts = [given] if isinstance(given, str | int) else list(given)
    text = ",".join(map(str, parts))  # a decimal comma has split it
    if text and spacing_in_angstrom(text) is None:
        raise AmbiguousColumnError(f"d_spacing={text}; expected a length in Å, e.g. d_spacing=3.1356 for Si(111)")
    return text


def angle_column(names: Sequence[str]) -> int | None:
    """Return the index of the monochromator's angle; None unless exactly one column has such a name."""
    places = [i for i, name in enumerate(names) if _ANGLE.fullmatch(plain_name(name))]
    return places[0] if len(places) == 1 else None


def match_absorption(name: str) -> bool:
    """Return whether a column has a usual name of μ, in transmission or fluorescence."""
    return bool(name and match_synonyms("mu", [name], in_files=True))


def may_be_measured(name: str) -> bool:
    """Return whether a column with this name may contain energies or an absorption that the name does not mention."""
    return not _NO_ENERGY.fullmatch(plain_name(name))


def _guess(role: str, names: Sequence[str], element: str | None) -> list[int]:
    """Return the indices of the columns that match the most specific pattern of the role."""
    matches = set(match_synonyms(role, {name for name in names if name}, in_files=True))
    if role == "energy" and len(matches) > 1:  # SSRL records requested and achieved energies
        matches = {name for name in matches if not re.search(r"request|set|nominal", name, re.I)} or matches
        matches = {name for name in matches if re.search(r"achieved", name, re.I)} or matches
    if role == "fluorescence" and not matches:
        matches = set(element_channels(element, names))
    return [place for place, name in enumerate(names) if name in matches]


def _summed(places: list[int], names: Sequence[str], notes: list[str]) -> list[int]:
    """Return the columns to sum: if a sum and its parts are present, the sum alone."""
    whole = [place for place in places if not re.search(r"\d$", names[place])]
    if whole and len(places) > len(whole):
        places = whole
    if len(places) > 1:
        notes.append(f"fluorescence is the sum of {', '.join(names[place] for place in places)}")
    return places


def _place(role: str, column: str | int, names: Sequence[str]) -> int:
    """Return the index of a column that the caller gives by its name or its number."""
    places = [place for place, name in enumerate(names) if name == column]
    places = places or [
        place for place, name in enumerate(names) if plain_name(name) == plain_name(str(column)) and name
    ]
    if not places and str(column).strip().isdecimal() and 1 <= int(column) <= len(names):
        places = [int(column) - 1]
    if len(places) != 1:
        there = ", ".join(name or str(place + 1) for place, name in enumerate(names)) or "none"
        raise AmbiguousColumnError(f"{len(places) or 'no'} column {column!r} for {role}; found the columns {there}")
    return places[0]
