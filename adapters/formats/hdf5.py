"""NeXus and other HDF5: by the paths that the caller names, by NXxas, else by the names of what is in it.

NXxas: NeXus application definition, an NXentry with ``definition`` NXxas, ``monochromator/energy``,
``incoming_beam/data``, ``absorbed_beam/data`` and the mode of the measurement.
"""

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...agent.fields import absorber
from ...agent.types import Array
from ..assets import missing_source
from .column_names import Columns, asked, choose
from .column_table import HOW as HOW_COLUMNS
from .energy import EnergyAxisError, in_ev
from .headers import when
from .npz import spectra_of
from .spectrum import FileSpectrum, SpectrumFileError

Node = Any
"""A group or array of h5py, whose own types do not tell which stands where."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs", ".nx")
MAX_VALUES = 50_000_000
"""Most values of one array."""
MAX_TEXT = 1 << 16
"""Longest text of fixed length, bytes."""
MAX_OBJECTS = 20_000
"""Most groups and arrays looked at."""
_EXPECTED = "expected NXxas, or energy and mu (or i0 and itrans) side by side, each (M,) or (N, M)"
_HOW = HOW_COLUMNS.replace("'energy': …", "'energy': '/path'").replace("energy=…", "energy=/path")
_LEAVES = ("data", "value", "raw", "readback")
"""Names that say nothing: the group's name counts instead."""


def read_hdf5(path: Path, wanted: Columns | None = None) -> list[FileSpectrum]:
    """The spectra of an HDF5 file.

    ``wanted`` names arrays by their paths, or by their names where those are one's alone. Links to other files
    are not followed.

    Raises:
        SpectrumFileError: h5py is not installed, the file is damaged, or what to read is not clear.
    """
    try:
        import h5py
    except ImportError as error:
        raise SpectrumFileError(f"{path}: HDF5 needs h5py: pip install 'xas-agent[formats]'") from error
    try:
        with h5py.File(path, "r") as file:
            return _read(path, file, wanted)
    except SpectrumFileError:
        raise
    except Exception as error:  # h5py raises anything at all on damaged bytes
        raise SpectrumFileError(f"{path}: not a whole HDF5 file ({str(error)[:200]}), {_EXPECTED}") from error


def _read(path: Path, file: Node, wanted: Columns | None) -> list[FileSpectrum]:
    arrays = dict(_arrays(file))
    if wanted:
        return _spectra(path, file["/"], _named(path, arrays, wanted), 0)
    entries = [group for group in _groups(file["/"], depth=1) if _class(group) == "NXentry"]
    found: list[FileSpectrum] = []
    for entry in entries:
        if _string(entry, "definition") == "NXxas" and (chosen := _nxxas(path, entry)):
            found += _spectra(path, entry, chosen, len(found))
    if found:
        return found
    for root in entries or [file["/"]]:
        if chosen := _by_names(path, root, arrays):
            found += _spectra(path, root, chosen, len(found))
    if not found:
        there = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:12]) or "no arrays"
        raise SpectrumFileError(f"{path}: found {there}, {_EXPECTED}; {_HOW}")
    return found


def _arrays(file: Node) -> Iterator[tuple[str, Node]]:
    """Arrays of numbers by path, in the file's order; each once, soft links as they are met after it."""
    import h5py

    queue: list[Any] = [file["/"]]
    seen, looked = set(), 0
    while queue:
        group = queue.pop(0)
        for name in group:
            looked += 1
            link = group.get(name, getlink=True)
            if looked > MAX_OBJECTS or isinstance(link, h5py.ExternalLink):
                continue
            item = group.get(name)
            if isinstance(item, h5py.Group):
                if item.id not in seen and len(seen) < MAX_OBJECTS:
                    seen.add(item.id)
                    queue.append(item)
            elif (
                isinstance(item, h5py.Dataset)
                and item.dtype.kind in "fiu"
                and item.ndim in (1, 2)
                and (item.size or 0) > 1
            ):
                yield posixpath.join(group.name, name), item


def _nxxas(path: Path, entry: Node) -> dict[str, list[Node]] | None:
    """The arrays of NXxas by role; None where the definition is claimed but its arrays are elsewhere."""
    energy, incoming, absorbed, mode = None, None, None, _mode(entry)
    for group in _groups(entry):
        name = posixpath.basename(group.name)
        if _class(group) == "NXmonochromator" or name == "monochromator":
            energy = energy or _dataset(group, "energy")
        if name in ("incoming_beam", "absorbed_beam"):
            beam = _dataset(group, "data")
            incoming, absorbed = (beam, absorbed) if name == "incoming_beam" else (incoming, beam)
    if energy is None or incoming is None or absorbed is None:
        return None
    if not mode:
        where = f"{{'energy': '{energy.name}', 'i0': '{incoming.name}', 'it' or 'if': '{absorbed.name}'}}"
        raise SpectrumFileError(
            f"{path}: found NXxas {entry.name} without a mode, expected Transmission or a yield; name columns={where}"
        )
    return {"energy": [energy], "i0": [incoming], "it" if "trans" in mode.lower() else "if": [absorbed]}


def _mode(entry: Node) -> str:
    groups = [entry, *_groups(entry)]
    return next(
        (mode for group in groups for key in ("mode", "scan_mode") if _is_mode(mode := _string(group, key))), ""
    )


def _is_mode(text: str) -> bool:
    """Not a monitor's, which counts by time or by monitor."""
    return any(word in text.lower() for word in ("trans", "fluo", "yield", "tey", "tfy", "pfy"))


def _by_names(path: Path, root: Node, arrays: dict[str, Node]) -> dict[str, list[Node]] | None:
    """The arrays by role: of the one group that has energy and absorption, else by their names in the whole entry.

    Of several groups, the one that NeXus's ``default`` names, else the only NXdata.
    """
    inside = {name: array for name, array in arrays.items() if posixpath.commonpath([name, root.name]) == root.name}
    groups: dict[str, list[str]] = {}
    for name in inside:
        above = posixpath.dirname(name)
        groups.setdefault(posixpath.dirname(above) if _says_nothing(name) else above, []).append(name)
        groups.setdefault(above, [])
    served = {}
    for group, names in groups.items():
        if chosen := _chosen(names, inside) or _plotted(root.file[group]):
            served[group] = chosen
    plotted = {name: chosen for name, chosen in served.items() if _class(root.file[name]) == "NXdata"}
    if len(served) > 1:
        default = _default(root)
        served = {default: served[default]} if default in served else plotted or served
    if len({frozenset(array.id for part in chosen.values() for array in part) for chosen in served.values()}) > 1:
        raise SpectrumFileError(f"{path}: found spectra in {' and '.join(list(served)[:5])}; {_HOW}")
    return next(iter(served.values())) if served else _chosen(list(inside), inside)


def _plotted(group: Node) -> dict[str, list[Node]] | None:
    """Energy and signal of an NXdata that names the one its axis and the other its signal, without a telling name."""
    if _class(group) != "NXdata":
        return None
    axes = group.attrs.get("axes", "")
    names = [axes] if isinstance(axes, str | bytes) else list(axes)
    axis = names[-1].decode() if names and isinstance(names[-1], bytes) else str(names[-1]) if names else ""
    energy, signal = _dataset(group, axis), _dataset(group, _attribute(group, "signal"))
    if energy is None or signal is None or "energy" not in choose([axis]).places:
        return None
    return {"energy": [energy], "mu": [signal]}


def _chosen(names: list[str], arrays: dict[str, Node]) -> dict[str, list[Node]] | None:
    """The arrays by role, from what they, or for ``data`` their groups, are called."""
    said = [_said(name) for name in names]
    choice = choose(said)
    roles = choice.places
    if "energy" not in roles or not (
        {"mu", "norm"} & roles.keys() or ("i0" in roles and {"it", "if"} & roles.keys())
    ):
        return None
    return {role: [arrays[names[place]] for place in places] for role, places in roles.items()}


def _said(name: str) -> str:
    return posixpath.basename(posixpath.dirname(name) if _says_nothing(name) else name)


def _says_nothing(name: str) -> bool:
    return posixpath.basename(name).lower() in _LEAVES and name.count("/") > 1


def _named(path: Path, arrays: dict[str, Node], wanted: Columns) -> dict[str, list[Node]]:
    by_path = list(arrays)
    said = [_said(name) for name in by_path]
    chosen: dict[str, list[Node]] = {}
    for role, items in asked(wanted).items():
        for item in items:
            full = posixpath.join("/", str(item))
            fits = [full] if full in arrays else [n for n, s in zip(by_path, said, strict=True) if s == str(item)]
            if len(fits) != 1:
                there = ", ".join(fits or by_path[:20]) or "no arrays"
                raise SpectrumFileError(f"{path}: found {there}; expected one array {item!r} for {role}")
            chosen.setdefault(role, []).append(arrays[fits[0]])
    return chosen


def _spectra(path: Path, root: Node, chosen: dict[str, list[Node]], first: int) -> list[FileSpectrum]:
    notes: tuple[str, ...] = ()
    kind = next(
        (k for k in ("mu", "it", "if", "norm") if k in chosen and (k in ("mu", "norm") or "i0" in chosen)), ""
    )
    if "energy" not in chosen or not kind:
        raise SpectrumFileError(f"{path}: found {', '.join(chosen)} in {root.name}, {_EXPECTED}; {_HOW}")
    columns = {role: _sum(path, arrays) for role, arrays in chosen.items()}
    if len(chosen.get("if", ())) > 1 and kind == "if":
        notes += (f"fluorescence is the sum of {', '.join(str(a.name) for a in chosen['if'])}",)
    energy = chosen["energy"][0]
    try:
        columns["energy"], guessed = in_ev(columns["energy"], str(energy.name), _attribute(energy, "units"))
    except EnergyAxisError as error:
        raise SpectrumFileError(f"{path}: found {error}") from error
    points = columns["energy"].shape[-1]
    for role, array in columns.items():
        if array.ndim == 2 and array.shape[1] == 1:
            columns[role] = array[:, 0]
        elif array.ndim == 2 and array.shape[1] != points and array.shape[0] == points:
            columns[role], notes = array.T, (*notes, f"{role} of {array.shape} turned: its first axis is the energy")
        elif array.ndim == 2 and array.shape == (points, points) and role != "energy":
            notes += (f"{role} of {array.shape} taken as a spectrum per row: its shape does not tell",)
    name = posixpath.basename(root.name) or path.name
    rows = np.atleast_2d(columns[kind]).shape[0]
    ids = [f"{path.name}:{name}" + (f":{row}" if rows > 1 else "") for row in range(rows)]
    return spectra_of(path, columns, kind, ids, row=first, notes=(*notes, *guessed), **_about(root))


def _sum(path: Path, arrays: list[Node]) -> Array:
    for array in arrays:
        if array.size > MAX_VALUES:
            raise SpectrumFileError(f"{path}: found {array.name} of shape {array.shape}, at most {MAX_VALUES} values")
        if missing := missing_source(array):
            raise SpectrumFileError(f"{path}: found {array.name} without {missing}, expected what it is made of")
        if array.shape != arrays[0].shape:
            raise SpectrumFileError(f"{path}: found {array.name} of {array.shape} beside {arrays[0].shape}")
    return np.sum([np.asarray(array[()], dtype=np.float64) for array in arrays], axis=0)


def _about(root: Node) -> dict[str, Any]:
    """Absorber, sample, title and start, where NeXus has them."""
    groups = {posixpath.basename(group.name): group for group in _groups(root)}
    element, edge = absorber(
        next((t for g in (root, *groups.values()) for k in ("element", "symbol") if (t := _string(g, k))), None),
        next((t for g in (root, *groups.values()) for k in ("edge",) if (t := _string(g, k))), None),
    )
    sample = next((_string(g, "name") for g in groups.values() if _class(g) == "NXsample"), "")
    return {
        "element": element,
        "edge": edge,
        "title": _string(root, "title") or None,
        "sample": sample or None,
        "time": when(_string(root, "start_time")) if _string(root, "start_time") else None,
    }


def _default(root: Node) -> str:
    name = _attribute(root, "default")
    return posixpath.join(root.name, name) if name else ""


def _groups(root: Node, depth: int = 3) -> Iterator[Node]:
    for name in root:
        item = root.get(name) if root.get(name, getclass=True, getlink=True).__name__ == "HardLink" else None
        if item is not None and _is_group(item):
            yield item
            if depth > 1:
                yield from _groups(item, depth - 1)


def _is_group(item: Any) -> bool:
    import h5py

    return isinstance(item, h5py.Group)


def _dataset(group: Node, name: str) -> Node | None:
    import h5py

    item = None if not name or isinstance(group.get(name, getlink=True), h5py.ExternalLink) else group.get(name)
    return item if isinstance(item, h5py.Dataset) and _is_array(item) else None


def _is_array(item: Node) -> bool:
    """Whether it is one of numbers, (M,) or (N, M)."""
    return item.dtype.kind in "fiu" and len(item.shape or ()) in (1, 2) and int(item.size or 0) > 1


def _class(group: Node) -> str:
    return _attribute(group, "NX_class")


def _attribute(item: Any, name: str) -> str:
    value = item.attrs.get(name, "")
    value = value[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def _string(group: Any, name: str) -> str:
    """A text of one, "" where there is none."""
    import h5py

    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        return ""
    item = group.get(name)
    if not isinstance(item, h5py.Dataset) or item.size != 1 or item.dtype.kind not in "OSU":
        return ""
    if item.dtype.itemsize > MAX_TEXT:
        return ""
    value = np.asarray(item[()]).reshape(-1)[0]
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
