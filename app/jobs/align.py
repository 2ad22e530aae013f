"""``xas-agent align``: spectra of files on the grid of their model, as files, a table and figures."""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..._version import __version__
from ...adapters.formats import Columns, FileSpectrum, SpectrumFileError
from ...agent.estimate import Answer
from ...agent.types import Array, Estimator, Flag, Refusal
from ..config import Config
from ..wiring import load_models
from .files import answers_of, read_and_log

Form = Literal["npz", "csv", "xdi"]


@dataclass(frozen=True)
class FileAlignment:
    """One spectrum of a file and its alignment."""

    spectrum: FileSpectrum
    answer: Answer | Refusal
    """Answer without an estimate, or the reason why the spectrum is not a valid frame."""

    @property
    def refusal(self) -> Refusal | None:
        """Reason for which the spectrum is set aside; None if it is aligned."""
        return self.answer if isinstance(self.answer, Refusal) else self.answer.refusal

    @property
    def model(self) -> Estimator | None:
        return None if isinstance(self.answer, Refusal) else self.answer.model

    @property
    def mu(self) -> NDArray[np.float32]:
        """Aligned spectrum on the grid, (G,), dimensionless."""
        assert isinstance(self.answer, Answer)
        return self.answer.mu

    @property
    def quantities(self) -> Mapping[str, float]:
        """Quantities of :class:`~xas_agent.agent.spectra.align.Aligned`; empty without an alignment."""
        return {} if isinstance(self.answer, Refusal) else self.answer.quantities

    @property
    def flags(self) -> tuple[Flag, ...]:
        return () if isinstance(self.answer, Refusal) else self.answer.flags


def align_files(
    files: Sequence[Path],
    config: Config,
    columns: Columns | None = None,
    refused: list[SpectrumFileError] | None = None,
) -> list[FileAlignment]:
    """Align all spectra of files to the grids of their models.

    Parameters
    ----------
    files : sequence of Path
    config : Config
    columns : mapping, optional
        As for :func:`read_spectra`.
    refused : list of SpectrumFileError, optional
        Gets the errors of the files that cannot be read; without it, the first error is raised.

    Returns
    -------
    list of FileAlignment
        One per spectrum, in the order of the files.

    Raises
    ------
    SpectrumFileError, ChoiceError
        As for :func:`~xas_agent.app.jobs.infer.infer_files`.
    """
    models = load_models(config)
    spectra = read_and_log(files, columns, refused)
    answers = dict(answers_of(spectra, models, config, estimate=False))
    return [FileAlignment(s, answers[i]) for i, s in enumerate(spectra)]


def write_aligned(alignments: Sequence[FileAlignment], folder: Path, form: Form) -> list[Path]:
    """Write the aligned spectra, energies in eV on FEFF's scale, and a table of all spectra.

    Parameters
    ----------
    alignments : sequence of FileAlignment
    folder : Path
        Created if it is missing.
    form : str
        ``npz``: one file per model with ``energy`` (G,), ``mu`` (N, G), ``id`` and ``energy_shift_ev`` (N,), which
        ``infer --theory`` reads. ``csv`` or ``xdi``: one file per spectrum.

    Returns
    -------
    list of Path
        Files of the spectra.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = distinct_ids([f.spectrum for f in alignments])
    named = list(zip(ids, alignments, strict=True))
    good = [(id, f) for id, f in named if f.refusal is None]
    written: list[Path] = []
    if form == "npz":
        for model in dict.fromkeys(f.model.name for _, f in good if f.model):
            mine = [f for _, f in good if f.model and f.model.name == model]
            path = folder / f"aligned-{model}.npz"
            np.savez(
                path,
                energy=_energies(mine[0]),
                mu=np.stack([f.mu for f in mine]),
                id=np.array([id for id, f in good if f.model and f.model.name == model]),
                energy_shift_ev=np.array([f.quantities["energy_shift_ev"] for f in mine]),
            )
            written.append(path)
    else:
        for id, f in good:
            path = folder / f"{name_of(id)}.{form}"
            path.write_text(_text(f, form), encoding="utf-8")
            written.append(path)
    _write_table(alignments, folder / "alignment.csv")
    return written


def draw_all(alignments: Sequence[FileAlignment], folder: Path) -> list[Path]:
    """Draw every spectrum that has a model, also those set aside; return the files."""
    from rich.console import Console
    from rich.progress import track

    from ..output.figures import draw_alignment

    console, drawn = Console(stderr=True), []
    named = list(zip(distinct_ids([f.spectrum for f in alignments]), alignments, strict=True))
    for id, f in track(named, "drawing", console=console, disable=not console.is_terminal):
        if isinstance(f.answer, Refusal) or f.answer.model is None or f.answer.aligned is None:
            continue
        names = (id, f.spectrum.sample_or_title, f.answer.model.name)
        path = folder / f"{name_of(id)}.png"
        draw_alignment(path, ", ".join(name for name in names if name), f.answer)
        drawn.append(path)
    return drawn


def distinct_ids(spectra: Sequence[FileSpectrum]) -> list[str]:
    """Return an id for each spectrum, all of which give different file names, also if case makes no difference.

    Where ids collide, the folder goes before them, and a number follows if that is not enough.
    """
    ids = [spectrum.id for spectrum in spectra]
    shared = {name for name, count in Counter(map(_plain, ids)).items() if count > 1}
    taken = {_plain(id) for id in ids} - shared
    for i, spectrum in enumerate(spectra):
        if _plain(ids[i]) in shared:
            base = ids[i] = "/".join((*Path(spectrum.source).parent.parts[-1:], ids[i])).lstrip("/")
            number = 1
            while _plain(ids[i]) in taken:
                number += 1
                ids[i] = f"{base}-{number}"
            taken.add(_plain(ids[i]))
    return ids


def _plain(id: str) -> str:
    return name_of(id).casefold()


def name_of(id: str) -> str:
    """Return an id as a file name.

    >>> name_of("NiO scan.xdi:0")
    'NiO_scan.xdi_0'
    """
    return re.sub(r"[^\w.+-]+", "_", id)


def _energies(alignment: FileAlignment) -> Array:
    assert alignment.model is not None
    return alignment.model.edge.edge_ev + alignment.model.grid.energy


def _text(alignment: FileAlignment, form: Form) -> str:
    """Return the columns energy and norm, below XDI's header or one line of names."""
    rows = "".join(f"{e:.2f} {m:.6f}\n" for e, m in zip(_energies(alignment), alignment.mu, strict=True))
    if form == "csv":
        return "energy,norm\n" + rows.replace(" ", ",")
    assert alignment.model is not None
    shift, spectrum, edge = alignment.quantities["energy_shift_ev"], alignment.spectrum, alignment.model.edge
    header = (
        f"XDI/1.0 xas-agent/{__version__}",
        "Column.1: energy eV",
        "Column.2: norm",
        f"Element.symbol: {alignment.model.absorber}",
        f"Element.edge: {alignment.model.edge_name}",
        f"Sample.name: {' '.join((spectrum.sample_or_title or spectrum.id).split())}",
        f"Alignment.model: {alignment.model.name}",
        f"Alignment.energy_shift: {shift:.3f} eV, added to the file's energies to obtain FEFF's scale",
        f"Alignment.energy_scale: {edge.scale:.4f}, ratio of measured to FEFF's energies from {edge.edge_ev:.2f} eV",
        "Alignment.read_again: xas-agent infer --theory, because the energies are FEFF's",
        "-------------",
        "energy norm",
    )
    return "".join(f"# {line}\n" for line in header) + rows


def _write_table(alignments: Sequence[FileAlignment], path: Path) -> None:
    names = list(dict.fromkeys(q for f in alignments for q in f.quantities))
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(
            file, ["id", "source", "row", "sample", "element", "model", *names, "flags", "set_aside"]
        )
        table.writeheader()
        for f in alignments:
            s = f.spectrum
            numbers = {k: round(v, 5) for k, v in f.quantities.items()}
            about = {"id": s.id, "source": s.source, "row": s.row, "sample": s.sample_or_title}
            about["element"] = f.model.absorber if f.model else s.element or ""
            about["model"] = f.model.name if f.model else ""
            table.writerow(about | numbers | {"flags": ", ".join(f.flags), "set_aside": f.refusal or ""})
