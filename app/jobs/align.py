"""``xas-agent align``: spectra of files on the grid of their model, as files, a table and pictures."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..._version import __version__
from ...adapters.formats import Columns, FileSpectrum
from ...agent.estimate import Answer
from ...agent.types import Array, Estimator, Flag, Refusal
from ..config import Config
from ..wiring import load_models
from .files import answers_of, read_all

Form = Literal["npz", "csv", "xdi"]


@dataclass(frozen=True)
class OnGrid:
    """One spectrum of a file and its alignment."""

    spectrum: FileSpectrum
    answer: Answer | Refusal
    """Without an estimate; a refusal where no frame could be made of the spectrum."""

    @property
    def refusal(self) -> Refusal | None:
        """Why it is set aside."""
        return self.answer if isinstance(self.answer, Refusal) else self.answer.refusal

    @property
    def model(self) -> Estimator | None:
        return None if isinstance(self.answer, Refusal) else self.answer.model

    @property
    def mu(self) -> NDArray[np.float32]:
        """(G,) on the grid and its footing."""
        assert isinstance(self.answer, Answer)
        return self.answer.mu

    @property
    def quantities(self) -> Mapping[str, float]:
        """As :class:`~xas_agent.agent.spectra.align.Aligned` has them."""
        return {} if isinstance(self.answer, Refusal) else self.answer.quantities

    @property
    def flags(self) -> tuple[Flag, ...]:
        return () if isinstance(self.answer, Refusal) else self.answer.flags


def align_files(files: Sequence[Path], config: Config, columns: Columns | None = None) -> list[OnGrid]:
    """Every spectrum of the files, in their order, on the grid of its model, or with the reason why it is not.

    Raises
    ------
    SpectrumFileError, ChoiceError
        As :func:`~xas_agent.app.jobs.infer.infer_files` raises them.
    """
    models = load_models(config)
    spectra = read_all(files, columns)
    found = dict(answers_of(spectra, models, config, estimate=False))
    return [OnGrid(s, found[i]) for i, s in enumerate(spectra)]


def write_aligned(found: Sequence[OnGrid], folder: Path, form: Form) -> list[Path]:
    """Write what was aligned, energies in eV on FEFF's scale, and a table of all; gives the spectra's files.

    ``npz`` is one file per model, ``energy`` (G,), ``mu`` (N, G), ``id`` and ``energy_shift_ev`` (N,), which
    ``infer --theory`` reads; ``csv`` and ``xdi`` are one per spectrum.
    """
    folder.mkdir(parents=True, exist_ok=True)
    good = [f for f in found if f.refusal is None]
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
            path = folder / f"{name_of(f.spectrum)}.{form}"
            path.write_text(_text(f, form), encoding="utf-8")
            written.append(path)
    _write_table(found, folder / "alignment.csv")
    return written


def draw_all(found: Sequence[OnGrid], folder: Path) -> list[Path]:
    """A picture of every spectrum that some model was chosen for, the refused ones with their reason."""
    from rich.console import Console
    from rich.progress import track

    from ..output.figures import draw_alignment

    console, drawn = Console(stderr=True), []
    for f in track(found, "drawing", console=console, disable=not console.is_terminal):
        if isinstance(f.answer, Refusal) or f.answer.model is None or f.answer.aligned is None:
            continue
        path, title = folder / f"{name_of(f.spectrum)}.png", f"{f.spectrum.id}, {f.answer.model.name}"
        draw_alignment(path, title, f.answer)
        drawn.append(path)
    return drawn


def name_of(spectrum: FileSpectrum) -> str:
    """The spectrum's id as the name of a file.

    >>> name_of(FileSpectrum("NiO scan.xdi:0", "", 0, np.zeros(0), np.zeros(0)))
    'NiO_scan.xdi_0'
    """
    return re.sub(r"[^\w.+-]+", "_", spectrum.id)


def _energies(found: OnGrid) -> Array:
    assert found.model is not None
    return found.model.edge.edge_ev + found.model.grid.energy


def _text(found: OnGrid, form: Form) -> str:
    """Columns energy and norm, under XDI's header or one line of names."""
    rows = "".join(f"{e:.2f} {m:.6f}\n" for e, m in zip(_energies(found), found.mu, strict=True))
    if form == "csv":
        return "energy,norm\n" + rows.replace(" ", ",")
    assert found.model is not None
    shift, spectrum, edge = found.quantities["energy_shift_ev"], found.spectrum, found.model.edge
    header = (
        f"XDI/1.0 xas-agent/{__version__}",
        "Column.1: energy eV",
        "Column.2: norm",
        f"Element.symbol: {found.model.absorber}",
        f"Element.edge: {found.model.edge_name}",
        f"Sample.name: {' '.join((spectrum.sample or spectrum.title or spectrum.id).split())}",
        f"Alignment.model: {found.model.name}",
        f"Alignment.energy_shift: {shift:.3f} eV, added to the file's energies to reach FEFF's scale",
        f"Alignment.energy_scale: {edge.scale:.4f}, of measured energies from {edge.edge_ev:.2f} eV over FEFF's",
        "Alignment.read_again: xas-agent infer --theory, else it is taken for measured energies",
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
            table.writerow(about | numbers | {"flags": ", ".join(f.flags), "set_aside": f.refusal or ""})
