"""``xas-agent align``: puts spectra of files on the grid of their model; writes files, a table and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..._version import __version__
from ...adapters.files import Batch
from ...adapters.formats import Columns, FileSpectrum
from ...agent.estimate import Answer
from ...agent.types import Array, Estimator, Flag, InputError, Refusal, writable
from ..config import Config
from ..output.cells import TableWriter
from ..output.opening import make_folder
from ..output.progress import progress_beside_messages
from .files import distinct_ids, keep_on_ctrl_c, name_of, refusal_of, serve_files

Form = Literal["npz", "csv", "xdi"]
TABLE = "alignment"
"""File name, without suffix, of the table of all spectra."""


@dataclass(frozen=True)
class FileAlignment:
    """One spectrum of a file and its alignment."""

    id: str
    """Id of the spectrum, extended if needed so that its file name differs from all others and from the table's."""
    spectrum: FileSpectrum
    answer: Answer | Refusal
    """Answer without an estimate, or the reason why the spectrum is not a valid frame."""

    @property
    def refusal(self) -> Refusal | None:
        """Reason why the spectrum is set aside; None if it is aligned."""
        return refusal_of(self.answer)

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
    batch: Batch | None = None,
) -> list[FileAlignment]:
    """Align all spectra of files to the grids of their models.

    Parameters
    ----------
    files : sequence of Path
    config : Config
    columns : mapping, optional
        As for :func:`read_spectra`.
    batch : Batch, optional
        As for :func:`~xas_agent.app.jobs.files.serve_files`.

    Returns
    -------
    list of FileAlignment
        One per spectrum, in the order of the files.

    Raises
    ------
    SpectrumFileError, ChoiceError
        As for :func:`~xas_agent.app.jobs.files.serve_files`.
    """
    served = serve_files(files, config, columns, batch, estimate=False)
    ids = distinct_ids([(spectrum.id, spectrum.source) for spectrum, _ in served], taken=[TABLE])
    return [FileAlignment(id, spectrum, answer) for id, (spectrum, answer) in zip(ids, served, strict=True)]


def write_aligned(alignments: Sequence[FileAlignment], folder: Path, form: Form) -> list[Path]:
    """Write the aligned spectra, energies in eV on FEFF's scale, and a table of all spectra.

    Parameters
    ----------
    alignments : sequence of FileAlignment
    folder : Path
        Created if it is missing.
    form : str
        ``npz``: one file per model with ``energy`` (G,), ``mu`` (N, G), NaN beyond the end of a short scan, ``id``
        and ``energy_shift_ev`` (N,), which ``infer --theory`` reads. ``csv`` or ``xdi``: one file per spectrum.

    Returns
    -------
    list of Path
        Files of the spectra.
    """
    make_folder(folder)
    _refuse_inputs(folder, form, alignments)
    good = [f for f in alignments if f.refusal is None]
    written: list[Path] = []
    if form == "npz":
        for model in dict.fromkeys(f.model.name for f in good if f.model):
            mine = [f for f in good if f.model and f.model.name == model]
            path = folder / f"aligned-{model}.npz"
            np.savez(
                path,
                energy=_energies(mine[0]),
                mu=np.stack([f.mu for f in mine]),
                id=np.array([f.id for f in mine]),
                energy_shift_ev=np.array([f.quantities["energy_shift_ev"] for f in mine]),
            )
            written.append(path)
    else:
        for f in good:
            path = folder / f"{name_of(f.id)}.{form}"
            path.write_text(_text(f, form), encoding="utf-8")
            written.append(path)
    _write_table(alignments, folder / f"{TABLE}.csv")
    return written


def _refuse_inputs(folder: Path, form: Form, alignments: Sequence[FileAlignment]) -> None:
    """Raise InputError if an output file is one of the input files."""
    suffixes = ("png",) if form == "npz" else (form, "png")
    outputs = {folder / f"{name_of(f.id)}.{suffix}" for f in alignments for suffix in suffixes}
    outputs |= {folder / f"{TABLE}.csv"} | {folder / f"aligned-{f.model.name}.npz" for f in alignments if f.model}
    inputs = {Path(f.spectrum.source).resolve() for f in alignments}
    if both := inputs & {path.resolve() for path in outputs}:
        raise InputError(f"{min(both)}: found a file that is read and would be replaced, expected another --out")


def draw_all(alignments: Sequence[FileAlignment], folder: Path, batch: Batch) -> list[Path]:
    """Draw every spectrum that has a model, including those set aside, until Ctrl-C; return the files."""
    from ..output.figures import draw_alignment

    drawn: list[Path] = []
    with progress_beside_messages() as show, keep_on_ctrl_c(batch):
        for number, f in enumerate(alignments, start=1):
            if not isinstance(f.answer, Refusal) and f.answer.model is not None and f.answer.aligned is not None:
                path = folder / f"{name_of(f.id)}.png"
                names = (f.id, f.spectrum.sample_or_title, f.answer.model.name)
                draw_alignment(path, ", ".join(name for name in names if name), f.answer)
                drawn.append(path)
            show("drawing", number, len(alignments))
    return drawn


def _energies(alignment: FileAlignment) -> Array:
    assert alignment.model is not None
    return alignment.model.edge.edge_ev + alignment.model.grid.energy


def _text(alignment: FileAlignment, form: Form) -> str:
    """Return the columns energy and norm, up to the end of the scan, below XDI's header or one line of names."""
    points = zip(_energies(alignment), alignment.mu, strict=True)
    rows = "".join(f"{e:.2f} {m:.6f}\n" for e, m in points if not np.isnan(m))
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
        f"Sample.name: {writable(' '.join((spectrum.sample_or_title or spectrum.id).split()))}",
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
        table = TableWriter(file, ["id", "source", "row", "sample", "element", "model", *names, "flags", "set_aside"])
        table.writeheader()
        for f in alignments:
            s = f.spectrum
            numbers = {k: round(v, 5) for k, v in f.quantities.items()}
            about = {"id": f.id, "source": s.source, "row": s.row, "sample": s.sample_or_title}
            about["element"] = f.model.absorber if f.model else s.element or ""
            about["model"] = f.model.name if f.model else ""
            table.writerow(about | numbers | {"flags": ", ".join(f.flags), "set_aside": f.refusal or ""})
