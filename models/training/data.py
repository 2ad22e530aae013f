"""FEFF training data: ``NAME.npz`` and ``NAME.csv`` in a folder.

``NAME.npz``
    ``id`` (N,), ``energy`` (N, M) absolute photon energy in eV on FEFF's own scale, ``mu`` (N, M) absorption
    divided by FEFF's atomic background.
``NAME.csv``
    one row per ``id`` with ``material`` (rows of one material never stand on both sides of a split), ``split``
    (``train``, ``val``; rows of any other split are not trained on) and a column per descriptor; an empty cell
    is a label that could not be assigned. ``OS_mean``, where there is such a column, is the mean oxidation
    state of the absorber in the compound. Rows whose ``kind`` is ``layered`` or ``rattled`` count as one material
    where their ``formula`` is the same: they are near copies of each other.

A folder of anyone's own FEFF runs written so is trained on without a change of code;
:mod:`xas_agent.models.datasets.dataset` writes it from structures, FEFF runs and Materials Project documents.
"""

import csv
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...agent.spectra import with_tail
from ...agent.types import Array, Grid, InputError, bin_means, get_logger

log = get_logger()

OXIDATION_STATES = (-4.0, 9.0)
"""Least and greatest that elements have; a charge balance beyond has gone wrong, as for an intermetallic oxide."""

MOBILE = frozenset(("Li", "Na", "K", "Rb", "Cs"))
"""What moves in and out of a framework while it stays."""

NEAR_COPIES = ("layered", "rattled")
"""Kinds whose rows of one formula, in whichever stacking, ordering or distortion, are one material."""


class DataError(InputError):
    """Training data that is not as documented; the message names file, finding and expectation."""


@dataclass(frozen=True)
class FeffData:
    """N sites of one absorber."""

    name: str
    ids: NDArray[np.str_]
    material: NDArray[np.str_]
    split: NDArray[np.str_]
    kind: NDArray[np.str_]
    framework: NDArray[np.str_]
    """Elements of the compound but for alkali ions: LiNiO2, Li0.5NiO2 and NiO2 share it. Empty without a formula."""
    energy: Array
    """(N, M) eV, absolute, FEFF's scale."""
    mu: Array
    """(N, M)"""
    labels: dict[str, Array]
    """(N,) per descriptor; NaN where it could not be assigned. ``OS_mean`` falls back on OS."""

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, mask: NDArray[np.bool_]) -> "FeffData":
        """The sites that ``mask`` selects."""
        labels = {k: v[mask] for k, v in self.labels.items()}
        return FeffData(
            self.name,
            self.ids[mask],
            self.material[mask],
            self.split[mask],
            self.kind[mask],
            self.framework[mask],
            self.energy[mask],
            self.mu[mask],
            labels,
        )

    def on_bins(self, bounds: Array, edge_ev: float) -> Array:
        """(N, len(bounds) − 1) bin means over ``bounds`` (eV relative to the tabulated edge), tails continued."""
        energy, mu = with_tail(self.energy - edge_ev, self.mu, bounds[0])
        return bin_means(energy, mu, bounds)


def load_feff(folder: Path, name: str, descriptors: tuple[str, ...]) -> FeffData:
    """Read ``folder/name.npz`` and ``folder/name.csv``.

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
        own = numbers("OS_mean")
        odd = (own < OXIDATION_STATES[0]) | (own > OXIDATION_STATES[1])
        if odd.any():
            log.warning("mean oxidation states that no element has are left out", data=name, ids=ids[odd].tolist())
        labels["OS_mean"] = np.where(odd, np.nan, np.where(np.isnan(own), labels["OS"], own))
    kind, formula = text("kind"), text("formula")
    material = np.where(np.isin(kind, NEAR_COPIES) & (formula != ""), formula, text("material"))
    framework = np.array([framework_of(f) for f in formula.tolist()])
    return FeffData(name, ids, material, text("split"), kind, framework, energy, mu, labels)


def framework_of(formula: str) -> str:
    """Elements of a formula without alkali ions, in alphabetical order.

    >>> framework_of("Li(NiO2)2")
    'Ni-O'
    """
    return "-".join(sorted(set(re.findall("[A-Z][a-z]?", formula)) - MOBILE))


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
        raise DataError(f"{path}: not a table of text ({e}); expected a row per id") from None


def grid_end(data: FeffData, edge_ev: float) -> float:
    """Where the shortest row of ``data`` ends, eV relative to the tabulated edge: no grid may reach further."""
    return float(data.energy[:, -1].min() - edge_ev)


def check_grid(grid: Grid, data: FeffData, edge_ev: float) -> None:
    """Refuse a grid that reaches beyond the shortest training row."""
    end = grid_end(data, edge_ev)
    if grid.stop_ev > end:
        raise DataError(
            f"{data.name}: the shortest row ends {end:.1f} eV above the edge, the grid at {grid.stop_ev:g} eV"
        )
