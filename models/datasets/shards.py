"""A folder of data sets that grows while FEFF runs: one set ``<absorber>_k`` per absorber, and shards of new rows.

A shard holds rows of any absorbers, and is merged into the sets later, so that files under version control are not
rewritten for every few sites. Other sets (:data:`APART`), such as ``<absorber>_k_disordered``, lie beside them and
are not merged with them. Needs the ``[train]`` extra.
"""

import csv
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...agent.types import Array, InputError
from ..lengthen import lengthen
from .batch import replacing
from .dataset import COLUMNS, Labels, table_cells
from .feff_runs import FeffSpectrum, highest_mu
from .structure_files import element_of, material_of
from .structures import DESCRIPTORS

SHARDS = "shards"
SPLITS = ("train", "val", "sim", "cal")
APART = ("disordered", "sulphides")
"""Names of sets ``<absorber>_k_NAME`` that are not merged: disordered structures, and sulphides of an absorber whose
``<absorber>_k`` is a published set."""


@dataclass(frozen=True)
class Row:
    """A spectrum with its cells of the table."""

    energy: Array
    """(M,) absolute energies on FEFF's scale, eV."""
    mu: Array
    """(M,) absorption over FEFF's atomic background."""
    cells: dict[str, str]
    """Cells by the names in :data:`~xas_agent.models.datasets.dataset.COLUMNS`."""

    @property
    def id(self) -> str:
        """Name of the site."""
        return self.cells["id"]

    @property
    def element(self) -> str:
        """Symbol of the absorber."""
        return element_of(self.id)

    @property
    def defect(self) -> str:
        """Why the row cannot be used; empty if it can."""
        if not (np.isfinite(self.energy).all() and np.isfinite(self.mu).all() and (np.diff(self.energy) > 0).all()):
            return "not finite, or energies that do not rise"
        if self.mu.max() > highest_mu(self.element):
            return f"a spike above {highest_mu(self.element):g}"
        if self.cells["split"] not in SPLITS:
            return f"split {self.cells['split']!r}, not one of {', '.join(SPLITS)}"
        missing = [c for c in ("material", "formula") if not self.cells[c]]
        return f"no {' and no '.join(missing)}" if missing else ""

    @classmethod
    def of(cls, spectrum: FeffSpectrum, labels: Labels) -> "Row":
        """Return the row of a FEFF run, with the split of its job."""
        cells = table_cells(spectrum.site, labels, spectrum.site.split)
        return cls(spectrum.energy, spectrum.mu, dict(zip(COLUMNS, map(str, cells), strict=True)))


@dataclass(frozen=True)
class Merged:
    """The result of a merge."""

    rows: int
    """Number of rows in all sets."""
    added: int
    """Number of rows from the shards."""
    twice: int
    """Number of rows left out because their site already has a row."""
    judging: int
    """Number of rows moved to ``val``, because other sites of their material are there."""
    dropped: Counter[str]
    """Numbers of rows left out, by reason."""


def read_rows(path: Path) -> list[Row]:
    """Read ``NAME.npz`` and the ``NAME.csv`` beside it.

    Raises
    ------
    InputError
        A file is missing or of another kind, or a row has no cells.
    """
    table = path.with_suffix(".csv")
    try:
        with np.load(path, allow_pickle=False) as z, table.open(newline="", encoding="utf-8") as f:
            cells = {row["id"]: {c: row.get(c) or "" for c in COLUMNS} for row in csv.DictReader(f)}
            found = zip(z["id"].astype(str).tolist(), z["energy"], z["mu"], strict=True)
            return [Row(e.astype(float), m.astype(float), cells[i]) for i, e, m in found]
    except (OSError, EOFError, ValueError, KeyError) as e:
        raise InputError(f"{path}: {e}; expected id, energy and mu, and a row per id in {table.name}") from None


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as ``path`` (``NAME.npz``) and ``NAME.csv``; spectra are stored in single precision."""
    points = max(len(r.energy) for r in rows)
    longer = [lengthen(r.energy, r.mu, points) for r in rows]
    energy, mu = (np.array(a, np.float32) for a in zip(*longer, strict=True))
    # The table first: additional ids in it do no harm, missing ones do.
    with replacing(path.with_suffix(".csv")) as beside, beside.open("w", newline="", encoding="utf-8") as f:
        table = csv.writer(f, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows([r.cells[c] for c in COLUMNS] for r in rows)
    with replacing(path) as beside, beside.open("wb") as f:
        np.savez_compressed(f, id=np.array([r.id for r in rows]), energy=energy, mu=mu)


def sets_of(folder: Path) -> list[Path]:
    """Return the sets of a folder, by absorber."""
    return sorted(folder.glob("*_k.npz"))


def apart_of(folder: Path) -> list[Path]:
    """Return the sets of a folder that are not merged (:data:`APART`), by name."""
    return sorted(path for name in APART for path in folder.glob(f"*_k_{name}.npz"))


def shards_of(folder: Path) -> list[Path]:
    """Return the shards of a folder in the order of their creation."""
    return sorted((folder / SHARDS).glob("*.npz"))


def ids_of(folder: Path, name: str | None = None) -> set[str]:
    """Return the ids of all rows of a folder, in sets, shards and the set ``name``."""
    found: set[str] = set()
    named = folder.glob(f"{name}.npz") if name else ()
    for path in {*sets_of(folder), *apart_of(folder), *shards_of(folder), *named}:
        with np.load(path, allow_pickle=False) as z:
            found.update(z["id"].astype(str).tolist())
    return found


def usable(rows: Iterable[Row], there: Collection[str] = ()) -> tuple[list[Row], Counter[str], int]:
    """Return rows without defect, one per site and none in ``there``; numbers left out by reason; repeated sites."""
    kept: dict[str, Row] = {}
    dropped: Counter[str] = Counter()
    twice = 0
    for row in rows:
        if why := row.defect:
            dropped[why] += 1
        elif row.id in kept or row.id in there:
            twice += 1
        else:
            # The sites of a structure are of one material, whichever their absorber.
            kept[row.id] = replace(row, cells=row.cells | {"material": material_of(row.cells["material"])})
    return list(kept.values()), dropped, twice


def append(folder: Path, rows: Sequence[Row]) -> Path:
    """Write rows as the next shard of a folder, and return its ``.npz``."""
    (folder / SHARDS).mkdir(parents=True, exist_ok=True)
    last = max((int(p.stem) for p in shards_of(folder) if p.stem.isdigit()), default=0)
    path = folder / SHARDS / f"{last + 1:04d}.npz"
    write_rows(path, rows)
    return path


def add_to_set(folder: Path, name: str, rows: Sequence[Row]) -> Path:
    """Add rows to the set ``name`` of a folder, which need not exist yet, and return its ``.npz``."""
    path = folder / f"{name}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    before = read_rows(path) if path.exists() else []
    write_rows(path, sorted([*before, *rows], key=lambda r: r.id))
    return path


def merge(folder: Path) -> Merged:
    """Merge the shards of a folder into its sets ``<absorber>_k``, and delete them.

    After an interruption the same call continues: rows that a set already has are not added again.

    Raises
    ------
    InputError
        A file cannot be read.
    """
    before = [row for path in sets_of(folder) for row in read_rows(path)]
    new = [row for path in shards_of(folder) for row in read_rows(path)]
    rows, dropped, twice = usable([*before, *new])
    judging = 0
    for element in sorted({r.element for r in rows}):
        mine = sorted((r for r in rows if r.element == element), key=lambda r: r.id)
        judged = {r.cells["material"] for r in mine if r.cells["split"] == "val"}
        for k, row in enumerate(mine):
            if row.cells["split"] == "train" and row.cells["material"] in judged:
                mine[k] = replace(row, cells=row.cells | {"split": "val"})
                judging += 1
        write_rows(folder / f"{element.lower()}_k.npz", mine)
    for path in shards_of(folder):
        path.unlink()
        path.with_suffix(".csv").unlink()
    return Merged(len(rows), len(rows) - len(before), twice, judging, dropped)


def tables(folder: Path) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return a table of all absorbers, and one of each absorber's kinds and descriptors, as (title, header, rows).

    Raises
    ------
    InputError
        The folder has no set, or a file cannot be read.
    """
    paths = [*sets_of(folder), *apart_of(folder)]
    if not paths:
        raise InputError(f"{folder}: no set; expected files such as co_k.npz")
    overview: list[list[str]] = []
    each: list[tuple[str, list[str], list[list[str]]]] = []
    for path in paths:
        rows = read_rows(path)
        splits = Counter(r.cells["split"] for r in rows)
        spans = np.array([r.energy[-1] - r.energy[0] for r in rows])
        overview.append(
            [
                path.stem,
                str(len(rows)),
                str(len({r.cells["material"] for r in rows})),
                *(str(splits[s]) for s in SPLITS),
                f"{min(r.energy[0] for r in rows):.1f}…{max(r.energy[-1] for r in rows):.1f}",
                f"{spans.min():.1f}",
                f"{max(r.mu.max() for r in rows):.2f}",
            ]
        )
        kinds = Counter((r.cells["kind"] or "–") for r in rows)
        described = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        each.append((f"{path.stem}: {described}", _DESCRIPTOR_HEADER, [_described(d, rows) for d in DESCRIPTORS]))
    header = ["set", "rows", "materials", *SPLITS, "energies (eV)", "shortest row (eV)", "largest mu"]
    return [("", header, overview), *each]


_DESCRIPTOR_HEADER = ["descriptor", *SPLITS, "median", "range"]


def _described(descriptor: str, rows: Sequence[Row]) -> list[str]:
    """Return the numbers of labels of a descriptor by split, with their median and range."""
    known = [r for r in rows if r.cells[descriptor]]
    splits = Counter(r.cells["split"] for r in known)
    values = np.array([float(r.cells[descriptor]) for r in known] or [math.nan])
    range_ = f"{values.min():.4g}…{values.max():.4g}" if known else "–"
    return [descriptor, *(str(splits[s]) for s in SPLITS), f"{np.median(values):.4g}" if known else "–", range_]
