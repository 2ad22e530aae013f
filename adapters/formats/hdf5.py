"""Reads NeXus and other HDF5 files: arrays at paths that the caller names, in NXxas, or by their names.

NXxas is a NeXus application definition: an NXentry with ``definition`` NXxas, ``monochromator/energy``,
``incoming_beam/data``, ``absorbed_beam/data`` and the mode of the measurement.
"""

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...agent.fields import parse_absorber
from ...agent.types import Array
from ..assets import missing_source
from .column_names import Columns, by_role, choose_columns
from .column_table import HOW_TO_NAME as HOW_TO_NAME_COLUMNS
from .energy import EnergyAxisError, in_ev
from .headers import timestamp
from .npz import spectra_of
from .spectrum import FileSpectrum, SpectrumFileError

Node = Any
"""A group or dataset of h5py, whose type stubs do not distinguish them."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs", ".nx")
MAX_VALUES = 50_000_000
"""Largest number of values of one array."""
MAX_TEXT = 1 << 16
"""Largest size of a fixed-length text, bytes."""
MAX_OBJECTS = 20_000
"""Largest number of groups and arrays that are visited."""
_EXPECTED = "expected NXxas, or energy and mu (or i0 and itrans) side by side, each (M,) or (N, M)"
_HOW_TO_NAME = HOW_TO_NAME_COLUMNS.replace("…", "/path", 1).replace("…", "'/path'", 1)
_LEAVES = ("data", "value", "raw", "readback")
"""Generic names, replaced by the name of the parent group."""


def read_hdf5(path: Path, wanted: Columns | None = None) -> list[FileSpectrum]:
    """Return the spectra of an HDF5 file. Links to other files are not followed.

    Parameters
    ----------
    path : Path
    wanted : mapping, optional
        Paths of the arrays by role, or their names if these are unique.

    Returns
    -------
    list of FileSpectrum

    Raises
    ------
    SpectrumFileError
        h5py is not installed, the file is damaged, or its arrays cannot be identified.
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
    except Exception as error:  # h5py raises many types of exception on damaged bytes
        raise SpectrumFileError(f"{path}: not a complete HDF5 file ({str(error)[:200]}), {_EXPECTED}") from error


def _read(path: Path, file: Node, wanted: Columns | None) -> list[FileSpectrum]:
    arrays = dict(_arrays(file))
    if wanted:
        return _spectra(path, file["/"], _named(path, arrays, wanted), 0)
    entries = [group for group in _groups(file["/"], depth=1) if _class(group) == "NXentry"]
    spectra: list[FileSpectrum] = []
    for entry in entries:
        if _string(entry, "definition") == "NXxas" and (chosen := _nxxas(path, entry)):
            spectra += _spectra(path, entry, chosen, len(spectra))
    if spectra:
        return spectra
    for root in entries or [file["/"]]:
        if chosen := _by_names(path, root, arrays):
            spectra += _spectra(path, root, chosen, len(spectra))
    if not spectra:
        there = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:12]) or "no arrays"
        raise SpectrumFileError(f"{path}: found {there}, {_EXPECTED}; {_HOW_TO_NAME}")
    return spectra


def _arrays(file: Node) -> Iterator[tuple[str, Node]]:
    """Yield the arrays of numbers with their paths, in the file's order; each group is visited once."""
    import h5py

    queue: list[Any] = [file["/"]]
    seen, visited = set(), 0
    while queue:
        group = queue.pop(0)
        for name in group:
            visited += 1
            link = group.get(name, getlink=True)
            if visited > MAX_OBJECTS or isinstance(link, h5py.ExternalLink):
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
    """Return the arrays of NXxas by role; None if an entry claims NXxas but lacks its arrays."""
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
        where = f"{{'energy': '{energy.name}', 'i0': '{incoming.name}', 'it' or 'fluorescence': '{absorbed.name}'}}"
        raise SpectrumFileError(
            f"{path}: found NXxas {entry.name} without a mode, expected Transmission or a yield; name columns={where}"
        )
    signal = "it" if "trans" in mode.lower() else "fluorescence"
    return {"energy": [energy], "i0": [incoming], signal: [absorbed]}


def _mode(entry: Node) -> str:
    groups = [entry, *_groups(entry)]
    return next(
        (mode for group in groups for key in ("mode", "scan_mode") if _is_mode(mode := _string(group, key))), ""
    )


def _is_mode(text: str) -> bool:
    """Return whether a text is a mode of detection; the mode of a monitor is its preset, time or monitor counts."""
    return any(word in text.lower() for word in ("trans", "fluo", "yield", "tey", "tfy", "pfy"))


def _by_names(path: Path, root: Node, arrays: dict[str, Node]) -> dict[str, list[Node]] | None:
    """Return the arrays by role: those of the group with energy and absorption, otherwise of the whole entry.

    If there are several such groups, NeXus's ``default`` or otherwise the only NXdata counts.
    """
    inside = {name: array for name, array in arrays.items() if posixpath.commonpath([name, root.name]) == root.name}
    groups: dict[str, list[str]] = {}
    for name in inside:
        above = posixpath.dirname(name)
        groups.setdefault(posixpath.dirname(above) if _is_generic(name) else above, []).append(name)
        groups.setdefault(above, [])
    candidates = {}
    for group, names in groups.items():
        if chosen := _chosen(names, inside) or _plotted(root.file[group]):
            candidates[group] = chosen
    plotted = {name: chosen for name, chosen in candidates.items() if _class(root.file[name]) == "NXdata"}
    if len(candidates) > 1:
        default = _default(root)
        candidates = {default: candidates[default]} if default in candidates else plotted or candidates
    if len({frozenset(array.id for part in chosen.values() for array in part) for chosen in candidates.values()}) > 1:
        raise SpectrumFileError(f"{path}: found spectra in {' and '.join(list(candidates)[:5])}; {_HOW_TO_NAME}")
    return next(iter(candidates.values())) if candidates else _chosen(list(inside), inside)


def _plotted(group: Node) -> dict[str, list[Node]] | None:
    """Return energy and signal of an NXdata, according to its attributes ``axes`` and ``signal``."""
    if _class(group) != "NXdata":
        return None
    axes = group.attrs.get("axes", "")
    names = [axes] if isinstance(axes, str | bytes) else list(axes)
    axis = names[-1].decode() if names and isinstance(names[-1], bytes) else str(names[-1]) if names else ""
    energy, signal = _dataset(group, axis), _dataset(group, _attribute(group, "signal"))
    if energy is None or signal is None or "energy" not in choose_columns([axis]).places:
        return None
    return {"energy": [energy], "mu": [signal]}


def _chosen(names: list[str], arrays: dict[str, Node]) -> dict[str, list[Node]] | None:
    """Return the arrays by role, from their names or, if these are generic, from the names of their groups."""
    roles = choose_columns([_own_name(name) for name in names]).places
    if "energy" not in roles or not (
        {"mu", "normalised"} & roles.keys() or ("i0" in roles and {"it", "fluorescence"} & roles.keys())
    ):
        return None
    return {role: [arrays[names[place]] for place in places] for role, places in roles.items()}


def _own_name(name: str) -> str:
    return posixpath.basename(posixpath.dirname(name) if _is_generic(name) else name)


def _is_generic(name: str) -> bool:
    return posixpath.basename(name).lower() in _LEAVES and name.count("/") > 1


def _named(path: Path, arrays: dict[str, Node], wanted: Columns) -> dict[str, list[Node]]:
    paths = list(arrays)
    names = [_own_name(name) for name in paths]
    chosen: dict[str, list[Node]] = {}
    for role, items in by_role(wanted).items():
        for item in items:
            full = posixpath.join("/", str(item))
            fits = [full] if full in arrays else [p for p, n in zip(paths, names, strict=True) if n == str(item)]
            if len(fits) != 1:
                there = ", ".join(fits or paths[:20]) or "no arrays"
                raise SpectrumFileError(f"{path}: found {there}; expected one array {item!r} for {role}")
            chosen.setdefault(role, []).append(arrays[fits[0]])
    return chosen


def _spectra(path: Path, root: Node, chosen: dict[str, list[Node]], first: int) -> list[FileSpectrum]:
    notes: tuple[str, ...] = ()
    signals = ("mu", "it", "fluorescence", "normalised") if "i0" in chosen else ("mu", "normalised")
    signal = next((role for role in signals if role in chosen), "")
    if "energy" not in chosen or not signal:
        raise SpectrumFileError(f"{path}: found {', '.join(chosen)} in {root.name}, {_EXPECTED}; {_HOW_TO_NAME}")
    columns = {role: _sum(path, arrays) for role, arrays in chosen.items()}
    if len(chosen.get("fluorescence", ())) > 1 and signal == "fluorescence":
        notes += (f"fluorescence is the sum of {', '.join(str(a.name) for a in chosen['fluorescence'])}",)
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
            columns[role] = array.T
            notes += (f"{role} of {array.shape} is transposed: its first axis is the energy",)
        elif array.ndim == 2 and array.shape == (points, points) and role != "energy":
            notes += (f"{role} of {array.shape} is read as one spectrum per row, although its shape is ambiguous",)
    name = posixpath.basename(root.name) or path.name
    rows = np.atleast_2d(columns[signal]).shape[0]
    ids = [f"{path.name}:{name}" + (f":{row}" if rows > 1 else "") for row in range(rows)]
    return spectra_of(path, columns, signal, ids, row=first, notes=(*notes, *guessed), **_metadata(root))


def _sum(path: Path, arrays: list[Node]) -> Array:
    for array in arrays:
        if array.size > MAX_VALUES:
            raise SpectrumFileError(f"{path}: found {array.name} of shape {array.shape}, at most {MAX_VALUES} values")
        if missing := missing_source(array):
            raise SpectrumFileError(f"{path}: found {array.name} without {missing}, expected all its sources")
        if array.shape != arrays[0].shape:
            raise SpectrumFileError(f"{path}: found {array.name} of {array.shape}, expected {arrays[0].shape}")
    return np.sum([np.asarray(array[()], dtype=np.float64) for array in arrays], axis=0)


def _metadata(root: Node) -> dict[str, Any]:
    """Return absorber, edge, sample, title and start of a NeXus entry; None if missing."""
    groups = {posixpath.basename(group.name): group for group in _groups(root)}
    element, edge = parse_absorber(
        next((t for g in (root, *groups.values()) for k in ("element", "symbol") if (t := _string(g, k))), None),
        next((t for g in (root, *groups.values()) for k in ("edge",) if (t := _string(g, k))), None),
    )
    sample = next((_string(g, "name") for g in groups.values() if _class(g) == "NXsample"), "")
    return {
        "element": element,
        "edge": edge,
        "title": _string(root, "title") or None,
        "sample": sample or None,
        "time": timestamp(_string(root, "start_time")) if _string(root, "start_time") else None,
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
    """Return whether a dataset is an array of numbers, (M,) or (N, M)."""
    return item.dtype.kind in "fiu" and len(item.shape or ()) in (1, 2) and int(item.size or 0) > 1


def _class(group: Node) -> str:
    return _attribute(group, "NX_class")


def _attribute(item: Any, name: str) -> str:
    value = item.attrs.get(name, "")
    value = value[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def _string(group: Any, name: str) -> str:
    """Return a text dataset of a group, or an empty string if it is missing."""
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
