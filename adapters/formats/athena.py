"""Athena projects: records of Perl data, or JSON; either may be gzipped.

A Perl project is the output of Data::Dumper, one statement per line; it is parsed, never executed. B. Ravel, Athena's
documentation, "Project files", describes the JSON project. Both contain the same groups. xraylarch also reads both,
but it evaluates the lists as code, normalises the spectra, and is a large dependency.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...agent.fields import parse_absorber
from ...agent.types import Array
from .column_table import assemble
from .doubts import doubt_columns, doubt_energies
from .spectrum import FileSpectrum, SpectrumFileError
from .text import TextFile

_PROJECT = re.compile(r"Athena project file --")
_STATEMENT = re.compile(r"\s*[$@%](\w+)\s*=\s*(.*?);?\s*$", re.S)
_TOKEN = re.compile(r"\s*(?:('(?:[^'\\]|\\.)*')|(\"(?:[^\"\\]|\\.)*\")|([\w.+-]+)|(=>|[()\[\],{}]))", re.S)
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.S)
MAX_LINES = 500
"""Largest number of lines of one statement."""
_ARRAYS = ("x", "y", "i0")
_NOT_MU = {
    "is_chi": "χ(k)",
    "is_rsp": "χ(R)",
    "is_qsp": "χ(q)",
    "is_pixel": "over pixels",
    "is_diff": "a difference",
    "is_bkg": "a background",
}
_PARAMETERS = {
    "bkg_e0": "e0",
    "bkg_pre1": "pre1",
    "bkg_pre2": "pre2",
    "bkg_nor1": "norm1",
    "bkg_nor2": "norm2",
    "bkg_nnorm": "nnorm",
    "bkg_step": "edge_step",
    "bkg_eshift": "eshift",
}


@dataclass(slots=True, eq=False)
class _Group:
    key: str
    args: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    flaws: dict[str, str] = field(default_factory=dict)
    """Why parts of the group cannot be read, by the name of the part."""


class _BrokenError(ValueError):
    pass


def is_athena(text: TextFile) -> bool:
    """Whether one of the first lines is the header of an Athena project."""
    return any(_PROJECT.search(line[:2000]) for line in text.lines[:8])


def read_athena(path: Path, text: TextFile) -> list[FileSpectrum]:
    """Return one spectrum per group that contains μ(E).

    The energies include Athena's shift (``bkg_eshift``). The reference channel of a group becomes its ``reference``.
    Groups of χ(k) and other quantities, and groups that cannot be read, are left out; ``notes`` count them.

    Parameters
    ----------
    path : Path
    text : TextFile

    Returns
    -------
    list of FileSpectrum

    Raises
    ------
    SpectrumFileError
        The project contains no group of μ(E) that can be read.
    """
    first = next((line for line in text.lines if line.strip()), "")
    try:
        groups, broken = (_from_json(text), None) if first.lstrip().startswith("{") else _from_perl(text)
    except (_BrokenError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise SpectrumFileError(f"{path}: not a complete Athena project ({error or type(error).__name__})") from error
    _number_repetitions(groups)
    reasons = [_why_not(group) for group in groups]
    kept = [group for group, reason in zip(groups, reasons, strict=True) if reason is None]
    left = [f"{g.args.get('label', g.key)} ({reason})" for g, reason in zip(groups, reasons, strict=True) if reason]
    if not kept:
        why = ", ".join((*left, broken) if broken else left) or "empty"
        raise SpectrumFileError(f"{path}: found {len(groups)} groups, none of μ(E): {why}")
    notes = text.notes + ((broken,) if broken else ())
    if left:
        notes += (f"{len(left)} of {len(groups)} groups are left out: {', '.join(left)[:200]}",)
    by_key = {group.key: group for group in kept}
    foils = _foils(kept, by_key)
    complete = broken is None and not text.cut
    spectra: list[FileSpectrum] = []
    for group in kept:
        spectra += _spectra(path, len(spectra), group, by_key, foils, notes, complete)
    return spectra


def _spectra(
    path: Path,
    row: int,
    group: _Group,
    groups: Mapping[str, _Group],
    foils: set[str],
    notes: tuple[str, ...],
    complete: bool,
) -> list[FileSpectrum]:
    args, energy = group.args, _shifted(group)
    normalised = _flag(args, "is_nor")
    channels = {"normalised" if normalised else "mu": group.arrays["y"]}
    if "i0" in group.arrays and len(group.arrays["i0"]) == len(energy):
        channels["i0"] = group.arrays["i0"]
    foil = groups.get(str(args.get("reference") or ""))
    if foil is not None and foil is not group and group.key not in foils:
        foil_energy = _shifted(foil) - _number(foil.args, "bkg_eshift") + _number(args, "bkg_eshift")
        if len(foil_energy) == len(energy) and np.allclose(foil_energy, energy, rtol=0, atol=1e-3):
            channels["reference"] = foil.arrays["y"]
        else:
            notes += (f"the reference {foil.args.get('label', foil.key)!r} has other energies and is left out",)
    notes += tuple(f"the array {name} of this group is left out: {why}" for name, why in group.flaws.items())
    if group.key in foils:
        notes += ("this group is the reference channel of another group",)
    notes += doubt_energies(energy) + doubt_columns([], None, {"y": group.arrays["y"]})
    if shift := _number(args, "bkg_eshift"):
        notes += (f"energies are shifted by {shift:g} eV, as in Athena",)
    if _flag(args, "is_xmudat"):
        notes += ("computed by FEFF",)
    element, edge = parse_absorber(args.get("atsym") or args.get("bkg_z"), args.get("edge") or args.get("fft_edge"))
    element = None if element == "H" else element  # Athena's default for an unknown absorber
    label = str(args.get("label") or group.key)
    return assemble(
        path,
        energy,
        channels,
        "normalised" if normalised else "mu",
        id=f"{path.name}:{group.key}",
        row=row,
        element=element,
        edge=edge if element else None,
        title=label.strip(),
        parameters={ours: _number(args, theirs) for theirs, ours in _PARAMETERS.items() if _has(args, theirs)},
        notes=notes,
        complete=complete,
    )


def _foils(groups: Sequence[_Group], by_key: Mapping[str, _Group]) -> set[str]:
    """Return the reference channels: of two groups that refer to each other, the one labelled Ref, or the later."""
    foils: set[str] = set()
    for group in groups:
        tied = by_key.get(str(group.args.get("reference") or ""))
        if tied is None or tied is group or str(tied.args.get("reference") or "") != group.key:
            continue
        named = [g.key for g in (group, tied) if re.match(r"\s*Ref\b", str(g.args.get("label", "")))]
        pair = [g.key for g in groups if g is group or g is tied]
        foils.add(named[0] if len(named) == 1 else pair[1])
    return foils


def _number_repetitions(groups: Sequence[_Group]) -> None:
    """Give each group its own key, because a project may contain a group several times."""
    taken: set[str] = set()
    for group in groups:
        name, number = group.key, 1
        while group.key in taken:
            number += 1
            group.key = f"{name}.{number}"
        taken.add(group.key)


def _why_not(group: _Group) -> str | None:
    for part in ("group", "args", "x", "y"):
        if part in group.flaws:
            return f"{part} cannot be read: {group.flaws[part]}"
    for flag, quantity in _NOT_MU.items():
        if _flag(group.args, flag):
            return quantity
    if str(group.args.get("datatype", "")) == "chi":
        return _NOT_MU["is_chi"]
    if "x" not in group.arrays or "y" not in group.arrays:
        return "without data"
    if group.arrays["x"].shape != group.arrays["y"].shape or len(group.arrays["x"]) < 2:
        return f"{len(group.arrays['x'])} energies, {len(group.arrays['y'])} values"
    return None


def _from_json(text: TextFile) -> list[_Group]:
    content = json.loads("\n".join(text.lines))
    order = content.get("_____order")
    keys = order if isinstance(order, list) else [key for key in content if not key.startswith("_____")]
    groups = []
    for key in keys:
        record = content.get(key)
        group = _Group(str(key))
        groups.append(group)
        if not isinstance(record, dict):
            group.flaws["group"] = "found no group of this name"
            continue
        if isinstance(args := record.get("args"), dict):
            _read_part(group, "args", lambda args=args: args)
        for name in _ARRAYS:
            if values := record.get(name):
                _read_part(group, name, lambda values=values: _floats(values))
    return groups


def _read_part(group: _Group, name: str, read: Callable[[], Any], place: str = "") -> None:
    """Read the arguments or an array of a group, or record why this failed."""
    try:
        if name == "args":
            group.args = read()
            _check_shift(group.args)
        else:
            group.arrays[name] = read()
    except (ValueError, TypeError, OverflowError) as error:
        group.flaws[name] = f"{place}{error}"


def _from_perl(text: TextFile) -> tuple[list[_Group], str | None]:
    """Return the groups, and how the project ends early (None if it is complete)."""
    groups: list[_Group] = []
    group: _Group | None = None
    for number, line in _statements(text.lines if text.ended and not text.cut else text.lines[:-1]):
        if line.startswith("[record]"):
            if group is not None:
                groups.append(group)
            group = None
            continue
        match = _STATEMENT.match(line)
        if not match:
            continue
        name, value = match[1], match[2]
        if name == "old_group":
            try:
                group = _Group(str(_value(value)))
            except ValueError as error:
                group = _Group(f"line {number}", flaws={"group": str(error)})
        elif group is not None and name == "args":
            _read_part(group, name, lambda value=value: _pairs(_value(value)), f"line {number}: ")
        elif group is not None and name in _ARRAYS:
            _read_part(group, name, lambda value=value: _perl_floats(value), f"line {number}: ")
    if group is None:
        return groups, "the project ends early" if text.cut else None
    return groups, f"the project ends early within group {group.args.get('label', group.key)!r}, which is left out"


def _statements(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the statements with the numbers of their first lines; a string may span several lines."""
    begun: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("[record]"):
            begun = []
            yield number, line
        elif begun or re.match(r"[$@%]\w+\s*=", line):
            begun.append(line)
            if line.rstrip().endswith(";") and not re.search("['\"]", _STRING.sub("", "\n".join(begun))):
                yield number - len(begun) + 1, "\n".join(begun)
                begun = []
            elif len(begun) > MAX_LINES:
                raise _BrokenError(f"line {number - len(begun) + 1}: found a string that is not closed")


def _perl_floats(value: str) -> Array:
    inner = value.strip()
    if not (inner.startswith("(") and inner.endswith(")")):
        raise _BrokenError(f"found {inner[:30]!r}, expected a list of numbers")
    words = [word.strip().strip("'\"") for word in inner[1:-1].split(",") if word.strip()]
    return _floats([math.nan if word == "undef" else word for word in words])


def _floats(values: Any) -> Array:
    array = np.array(values, dtype=np.float64)
    if array.ndim != 1:
        raise _BrokenError(f"found an array of shape {array.shape}, expected (M,)")
    return array


def _value(text: str) -> Any:
    """Parse a Perl scalar or list of strings, numbers, undef and lists."""
    stack: list[list[Any]] = [[]]
    place, apart = 0, True
    text = text.strip()
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None or len(stack) > 50:
            raise _BrokenError(f"found {text[place : place + 30]!r}, expected a Perl list")
        single, double, word = token.group(1, 2, 3)
        sign: str = token[4] or ""
        if not apart and (not sign or sign in "([{"):
            raise _BrokenError(f"found {text[place : place + 30]!r}, expected a comma")
        place = token.end()
        apart = bool(sign) and sign not in ")]}"
        if single is not None:
            stack[-1].append(re.sub(r"\\([\\'])", r"\1", single[1:-1]))
        elif double is not None:
            stack[-1].append(_unescaped(double[1:-1]))
        elif word is not None:
            stack[-1].append(None if word == "undef" else word)
        elif sign in "([{":
            stack.append([])
        elif sign in ")]}":
            if len(stack) < 2:
                raise _BrokenError("found a closing bracket without an opening one")
            inner = stack.pop()
            stack[-1].append(inner)
    if len(stack) != 1 or len(stack[0]) != 1:
        raise _BrokenError("found a bracket or quotation mark that is not closed")
    return stack[0][0]


def _unescaped(text: str) -> str:
    text = re.sub(r"\\x\{([0-9a-fA-F]{1,6})\}", lambda m: chr(min(int(m[1], 16), 0x10FFFF)), text)
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), text, flags=re.S)


def _pairs(values: Any) -> dict[str, Any]:
    if not isinstance(values, list) or len(values) % 2:
        raise _BrokenError("found args that are not pairs of names and values")
    return {str(name): value for name, value in zip(values[::2], values[1::2], strict=True)}


def _check_shift(args: Mapping[str, Any]) -> None:
    """Refuse an energy shift that is not a number, since without it the energies are wrong."""
    shift = args.get("bkg_eshift")
    if shift not in (None, "") and _number(args, "bkg_eshift", math.nan) != _number(args, "bkg_eshift"):
        raise _BrokenError(f"found bkg_eshift {shift!r}, expected a number")


def _shifted(group: _Group) -> Array:
    return group.arrays["x"] + _number(group.args, "bkg_eshift")


def _has(args: Mapping[str, Any], key: str) -> bool:
    return key in args and bool(np.isfinite(_number(args, key, float("nan"))))


def _number(args: Mapping[str, Any], key: str, default: float = 0.0) -> float:
    try:
        number = float(args[key])
    except (KeyError, TypeError, ValueError):
        return default
    return number if np.isfinite(number) else default


def _flag(args: Mapping[str, Any], key: str) -> bool:
    return _number(args, key) != 0
