"""Spectra of files on the grid of their model: what ``infer`` starts with, and ``align`` writes and draws."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from . import __version__
from .adapters.formats import Columns, Spectrum, flaw, read_spectra
from .agent.alignment import Aligned, align
from .agent.choosing import choose
from .agent.errors import InputError
from .agent.protocols import Estimator
from .agent.theory import align_theory
from .config import Config
from .service import load_models

_log = structlog.get_logger(__name__)

BATCH = 256
Form = Literal["npz", "csv", "xdi"]


class ChoiceError(InputError):
    """No model, or more than one, fits the energies, and none was named."""


def choose_model(models: Sequence[Estimator], spectrum: Spectrum, config: Config) -> Estimator | str:
    """The model of a spectrum, or why it must be set aside."""
    if (why := flaw(spectrum)) is not None:
        return why
    if config.model.use and len(models) == 1:
        return models[0]
    element = config.fields.element or spectrum.element
    edge = config.fields.edge or spectrum.edge
    found = choose(models, spectrum.energy, spectrum.mu, element, edge)
    if not isinstance(found, tuple):
        return found
    if found[0] == "several models":
        raise ChoiceError(f"{spectrum.source}: {found[1]}; --model or --element says which")
    return f"{found[0]}: {found[1]}"


def groups(spectra: Sequence[Spectrum], chosen: Sequence[Estimator | str]) -> list[tuple[Estimator, list[int]]]:
    """Spectra that can be aligned in one call."""
    groups: dict[Any, tuple[Estimator, list[int]]] = {}
    for i, (s, model) in enumerate(zip(spectra, chosen, strict=True)):
        if isinstance(model, str):
            continue
        key = model.name, len(s.energy), bool(s.normalised), s.reference is None
        found = groups.setdefault(key, (model, []))
        found[1].append(i)
    return [(m, index[k : k + BATCH]) for m, index in groups.values() for k in range(0, len(index), BATCH)]


def aligned_together(spectra: list[Spectrum], model: Estimator, config: Config, theory: bool) -> Aligned:
    """Spectra of one group in one call; ``theory`` where they are FEFF's."""
    energy, mu = np.stack([s.energy for s in spectra]), np.stack([s.mu for s in spectra])
    if theory:
        return align_theory(energy, mu, model.grid, model.edge.edge_ev)
    references = [s.reference for s in spectra if s.reference is not None and np.isfinite(s.reference).all()]
    return align(
        energy,
        mu,
        model.grid,
        model.edge,
        config.alignment,
        normalised=bool(spectra[0].normalised),
        reference=np.stack(references) if len(references) == len(spectra) else None,
    )


@dataclass(frozen=True)
class OnGrid:
    """One spectrum of a file and what alignment made of it."""

    spectrum: Spectrum
    set_aside: str = ""
    """Why it could not be aligned."""
    model: Estimator | None = None
    aligned: Aligned | None = None
    """Of the spectra that were aligned with it; ``row`` is its own."""
    row: int = 0

    @property
    def mu(self) -> NDArray[np.float32]:
        """(G,) on the grid and its footing."""
        assert self.aligned is not None
        return self.aligned.mu[self.row]

    @property
    def quantities(self) -> dict[str, float]:
        """As :class:`~xas_agent.agent.alignment.Aligned` has them."""
        return {} if self.aligned is None else {k: float(v[self.row]) for k, v in self.aligned.quantities.items()}

    @property
    def flags(self) -> tuple[str, ...]:
        return () if self.aligned is None else self.aligned.flags[self.row]


def align_files(files: Sequence[Path], config: Config, columns: Columns | None = None) -> Iterator[OnGrid]:
    """Every spectrum of the files, in their order, on the grid of its model, or with the reason why it is not.

    Raises
    ------
    SpectrumFileError, ChoiceError
        As :func:`~xas_agent.inference.infer_files` raises them.
    """
    models = load_models(config)
    for path in files:
        spectra = read_spectra(path, columns=columns)
        for note in dict.fromkeys(note for s in spectra for note in s.notes):
            _log.warning("read", file=str(path), note=note)
        chosen = [choose_model(models, s, config) for s in spectra]
        found = [OnGrid(s, c if isinstance(c, str) else "") for s, c in zip(spectra, chosen, strict=True)]
        for model, index in groups(spectra, chosen):
            aligned = aligned_together([spectra[i] for i in index], model, config, theory=False)
            for row, i in enumerate(index):
                refusal = aligned.refused[row]
                found[i] = OnGrid(spectra[i], ": ".join(refusal) if refusal else "", model, aligned, row)
        yield from found


def write_aligned(found: Sequence[OnGrid], folder: Path, form: Form) -> list[Path]:
    """Write what was aligned, energies in eV on FEFF's scale, and a table of all; gives the spectra's files.

    ``npz`` is one file per model, ``energy`` (G,), ``mu`` (N, G), ``id`` and ``energy_shift_ev`` (N,), which
    ``infer --theory`` reads; ``csv`` and ``xdi`` are one per spectrum.
    """
    folder.mkdir(parents=True, exist_ok=True)
    good = [f for f in found if not f.set_aside]
    written: list[Path] = []
    if form == "npz":
        for model in dict.fromkeys(f.model.name for f in good if f.model):
            mine = [f for f in good if f.model and f.model.name == model]
            path = folder / f"aligned-{model}.npz"
            np.savez(
                path,
                energy=_energies(mine[0]),
                mu=np.stack([f.mu for f in mine]),
                id=np.array([f.spectrum.id for f in mine]),
                energy_shift_ev=np.array([f.quantities["energy_shift_ev"] for f in mine]),
            )
            written.append(path)
    else:
        for f in good:
            path = folder / f"{name_of(f)}.{form}"
            path.write_text(_text(f, form), encoding="utf-8")
            written.append(path)
    _write_table(found, folder / "alignment.csv")
    return written


def draw_all(found: Sequence[OnGrid], folder: Path) -> list[Path]:
    """A picture of every spectrum that some model was chosen for, the refused ones with their reason."""
    from rich.console import Console
    from rich.progress import track

    from .plotting import draw_alignment

    console, drawn = Console(stderr=True), []
    for f in track(found, "drawing", console=console, disable=not console.is_terminal):
        if f.model is None or f.aligned is None:
            continue
        path = folder / f"{name_of(f)}.png"
        s, title = f.spectrum, f"{f.spectrum.id}, {f.model.name}"
        draw_alignment(path, title, s.energy, s.mu, f.aligned, f.row, f.model.grid, f.model.edge)
        drawn.append(path)
    return drawn


def name_of(found: OnGrid) -> str:
    """The spectrum's id as the name of a file.

    >>> name_of(OnGrid(Spectrum("NiO scan.xdi:0", "", 0, np.zeros(0), np.zeros(0))))
    'NiO_scan.xdi_0'
    """
    return re.sub(r"[^\w.+-]+", "_", found.spectrum.id)


def _energies(found: OnGrid) -> NDArray[np.float64]:
    assert found.model is not None
    return found.model.edge.edge_ev + found.model.grid.energy


def _text(found: OnGrid, form: Form) -> str:
    """Columns energy and norm, under XDI's header or one line of names."""
    rows = "".join(f"{e:.2f} {m:.6f}\n" for e, m in zip(_energies(found), found.mu, strict=True))
    if form == "csv":
        return "energy,norm\n" + rows.replace(" ", ",")
    assert found.model is not None
    shift, spectrum = found.quantities["energy_shift_ev"], found.spectrum
    header = (
        f"XDI/1.0 xas-agent/{__version__}",
        "Column.1: energy eV",
        "Column.2: norm",
        f"Element.symbol: {found.model.absorber}",
        f"Element.edge: {found.model.edge_name}",
        f"Sample.name: {' '.join((spectrum.sample or spectrum.title or spectrum.id).split())}",
        f"Alignment.model: {found.model.name}",
        f"Alignment.energy_shift: {shift:.3f} eV, added to the file's energies to reach FEFF's scale",
        "-------------",
        "energy norm",
    )
    return "".join(f"# {line}\n" for line in header) + rows


def _write_table(found: Sequence[OnGrid], path: Path) -> None:
    names = list(dict.fromkeys(q for f in found for q in f.quantities))
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["id", "source", "row", "model", *names, "flags", "set_aside"])
        table.writeheader()
        for f in found:
            s = f.spectrum
            numbers = {k: round(v, 5) for k, v in f.quantities.items()}
            about = {"id": s.id, "source": s.source, "row": s.row, "model": f.model.name if f.model else ""}
            table.writerow(about | numbers | {"flags": ", ".join(f.flags), "set_aside": f.set_aside})
