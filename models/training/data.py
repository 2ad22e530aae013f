"""FEFF training data: ``NAME.npz`` and ``NAME.csv`` in a folder.

``NAME.npz``
    ``id`` (N,), ``energy`` (N, M) absolute photon energy in eV on FEFF's own scale, ``mu`` (N, M) absorption
    divided by FEFF's atomic background.
``NAME.csv``
    one row per ``id`` with ``material`` (all rows of a material are on one side of a split), ``split`` (``train``,
    ``val``; rows of other splits are not trained on) and a column per descriptor; an empty cell is a label that could
    not be assigned. The optional column ``OS_mean`` is the mean oxidation state of the absorber in the compound;
    without the column it is ``OS``. Rows of the ``kind`` ``layered`` or ``rattled`` with the same ``formula`` count
    as one material, since they are near copies of each other.

:mod:`xas_agent.models.datasets.dataset` writes such files from structures, FEFF runs and Materials Project documents.
"""

import csv
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...agent.spectra import with_tail
from ...agent.types import Array, Grid, InputError, bin_means, get_logger
from ..lengthen import lengthen

log = get_logger()

_OXIDATION_STATE_RANGE = (-4.0, 9.0)
"""Range of the elements, e; a charge balance outside of it is wrong, as for an intermetallic oxide."""

_MOBILE_IONS = frozenset(("Li", "Na", "K", "Rb", "Cs"))
"""Elements that move in and out of a framework."""

_MATERIALS_PROJECT_ID = re.compile(r"(mp|mvc)-\d+")
"""Beginning of a material's name, as in mp-1692 or mp-1692_Co."""

_NEAR_COPY_KINDS = ("layered", "rattled")
"""Kinds whose rows with one formula, whatever the stacking, ordering or distortion, are one material."""


class DataError(InputError):
    """Training data are invalid; the message states the file, what was found and what was expected."""


@dataclass(frozen=True)
class FeffData:
    """N sites of one absorber."""

    name: str
    ids: NDArray[np.str_]
    material: NDArray[np.str_]
    split: NDArray[np.str_]
    kind: NDArray[np.str_]
    formula: NDArray[np.str_]
    """(N,) reduced formulas of the compounds; empty if the table has none."""
    energy: Array
    """(N, M) absolute energies on FEFF's scale, eV."""
    mu: Array
    """(N, M) absorption divided by FEFF's atomic background."""
    labels: dict[str, Array]
    """(N,) labels of each descriptor; NaN if unassigned. ``OS_mean`` is OS if the table has no such column."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def framework(self) -> NDArray[np.str_]:
        """(N,) elements of the compound except alkali ions: Ni-O for LiNiO2 and NiO2; empty without a formula."""
        return np.array([framework_of(f) for f in self.formula.tolist()], str)

    def rows(self, mask: NDArray[np.bool_]) -> "FeffData":
        """Return the sites that ``mask`` (N,) selects."""
        labels = {k: v[mask] for k, v in self.labels.items()}
        return FeffData(
            self.name,
            self.ids[mask],
            self.material[mask],
            self.split[mask],
            self.kind[mask],
            self.formula[mask],
            self.energy[mask],
            self.mu[mask],
            labels,
        )

    @property
    def last(self) -> Array:
        """(N,) absolute last energies, eV."""
        return self.energy[:, -1]

    def on_bins(self, bounds: Array, edge_ev: float) -> Array:
        """Return bin means (N, B) over ``bounds`` (B + 1, eV from the tabulated edge), with extrapolated tails."""
        energy, mu = with_tail(self.energy - edge_ev, self.mu, bounds[0])
        return bin_means(energy, mu, bounds)


def load_feff(folder: Path, name: str, descriptors: tuple[str, ...]) -> FeffData:
    """Read ``folder/name.npz`` and ``folder/name.csv``.

    Parameters
    ----------
    descriptors : columns of the table to read

    Raises
    ------
    DataError
        A file, an array or a column is missing, or the two files disagree.
    """
    npz, table = folder / f"{name}.npz", folder / f"{name}.csv"
    for path in (npz, table):
        if not path.is_file():
            raise DataError(
                f"{path}: not found; training data are {name}.npz and {name}.csv in one folder (xas-agent dataset"
                " makes them from structures, FEFF runs and documents of the Materials Project)"
            )
    ids, energy, mu = _arrays(npz)
    by_id = _by_id(table, {"id", "material", "split", *descriptors})
    unlabelled = [i for i in ids if i not in by_id]
    if unlabelled:
        raise DataError(f"{table}: no row for {len(unlabelled)} ids of {npz.name}, the first {unlabelled[0]}")
    rows = [by_id[i] for i in ids]

    def text(column: str) -> NDArray[np.str_]:
        return np.array([r.get(column) or "" for r in rows])

    def numbers(column: str) -> Array:
        try:
            return np.array([float(r[column]) if r.get(column) else np.nan for r in rows])
        except ValueError as e:
            raise DataError(f"{table}: column {column}: {e}; expected numbers or empty cells") from None

    labels = {d: numbers(d) for d in descriptors}
    if "OS" in descriptors:
        # A single empty cell is not filled: other elements there have several charges, and OS is a guess.
        mean = numbers("OS_mean") if all("OS_mean" in r for r in rows) else labels["OS"].copy()
        impossible = (mean < _OXIDATION_STATE_RANGE[0]) | (mean > _OXIDATION_STATE_RANGE[1])
        if impossible.any():
            log.warning("impossible mean oxidation states are left out", data=name, ids=ids[impossible].tolist())
        labels["OS_mean"] = np.where(impossible, np.nan, mean)
    kind, formula = text("kind"), text("formula")
    material = np.where(np.isin(kind, _NEAR_COPY_KINDS) & (formula != ""), formula, text("material"))
    return FeffData(name, ids, material, text("split"), kind, formula, energy, mu, labels)


def load_sets(
    folder: Path, names: Sequence[str], descriptors: tuple[str, ...], shifts_ev: Sequence[float] = ()
) -> FeffData:
    """Read data sets and join their rows.

    Rows with the same id of the Materials Project and the same formula are one material, whatever the sets call it;
    if it judges in one set, it trains in none. A row without such an id may be any compound with its formula: it and
    the rows with its formula in other sets are one material too, so that none calibrates a network that was trained
    on another, but each keeps its side of the split.

    Parameters
    ----------
    shifts_ev : shifts to add to the energies of each set, eV; none by default

    Raises
    ------
    DataError
        As for :func:`load_feff`.
    """
    parts = [load_feff(folder, name, descriptors) for name in names]
    parts = [replace(p, energy=p.energy + s) for p, s in zip(parts, shifts_ev or [0.0] * len(parts), strict=True)]
    if len(parts) == 1:
        return parts[0]
    points = max(part.energy.shape[1] for part in parts)
    longer = [lengthen(e, m, points) for part in parts for e, m in zip(part.energy, part.mu, strict=True)]
    energy, mu = (np.array(a) for a in zip(*longer, strict=True))

    def column(name: str) -> NDArray[np.str_]:
        return np.concatenate([getattr(part, name) for part in parts])

    labels = {d: np.concatenate([part.labels[d] for part in parts]) for d in parts[0].labels}
    formula, split = column("formula"), column("split")
    # A prototype with another element on a site has the name of the prototype's id, but another formula.
    found = [_MATERIALS_PROJECT_ID.match(m) for m in column("material").tolist()]
    pairs = zip(found, formula.tolist(), column("material").tolist(), strict=True)
    material = np.array([f"{id[0]} {f}".strip() if id else m for id, f, m in pairs], object)
    split[np.isin(material, material[split == "val"]) & (split == "train")] = "val"
    number = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    without_id = np.array([id is None for id in found])
    for name in np.unique(formula[without_id & (formula != "")]):
        same = formula == name
        if len(np.unique(number[same])) > 1:
            material[same] = name
    rest = column("kind"), formula, energy, mu, labels
    return FeffData("+".join(names), column("ids"), material.astype(str), split, *rest)


def framework_of(formula: str) -> str:
    """Return the elements of a formula without alkali ions, in alphabetical order.

    >>> framework_of("Li(NiO2)2")
    'Ni-O'
    """
    return "-".join(sorted(set(re.findall("[A-Z][a-z]?", formula)) - _MOBILE_IONS))


def _arrays(path: Path) -> tuple[NDArray[np.str_], Array, Array]:
    try:
        with np.load(path, allow_pickle=False) as z:
            missing = {"id", "energy", "mu"} - set(z.files)
            if missing:
                raise DataError(f"{path}: no array {', '.join(sorted(missing))}; found {', '.join(z.files)}")
            ids, energy, mu = z["id"].astype(str), z["energy"].astype(float), z["mu"].astype(float)
    except DataError:
        raise
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as e:
        raise DataError(f"{path}: not an npz of numbers ({e}); expected id, energy and mu") from None
    if mu.shape != energy.shape or mu.ndim != 2 or len(ids) != len(mu):
        raise DataError(
            f"{path}: id {ids.shape}, energy {energy.shape}, mu {mu.shape}; expected (N,), (N, M), (N, M)"
        )
    rising = np.isfinite(mu).all(axis=1) & np.isfinite(energy).all(axis=1) & (np.diff(energy) > 0).all(axis=1)
    if not rising.all():
        raise DataError(f"{path}: row {ids[~rising][0]} is not finite, or its energies do not rise")
    return ids, energy, mu


def _by_id(path: Path, needed: set[str]) -> dict[str, dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f)
            columns = reader.fieldnames or ()
            missing = needed - set(columns)
            if missing:
                raise DataError(f"{path}: no column {', '.join(sorted(missing))}; found {', '.join(columns)}")
            return {row["id"]: row for row in reader}
    except (UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"{path}: not a CSV table ({e}); expected a row per id") from None


def grid_end(data: FeffData, edge_ev: float) -> float:
    """Return the last energy of the shortest row, eV from the tabulated edge, beyond which no grid may reach."""
    return float(data.last.min() - edge_ev)


def check_grid(grid: Grid, data: FeffData, edge_ev: float) -> None:
    """Check that every training row reaches the grid's end or its ``short_stop_ev``, and that one reaches its end.

    Raises
    ------
    DataError
        The rows do not fit the grid.
    """
    end = grid_end(data, edge_ev)
    least = grid.stop_ev if grid.short_stop_ev is None else grid.short_stop_ev
    if least > end:
        name = "the grid" if grid.short_stop_ev is None else "short_stop_ev"
        raise DataError(f"{data.name}: the shortest row ends {end:.1f} eV above the edge, {name} at {least:g} eV")
    if grid.stop_ev > (end := float(data.last.max() - edge_ev)):
        raise DataError(
            f"{data.name}: the longest row ends {end:.1f} eV above the edge, the grid at {grid.stop_ev:g} eV"
        )
