"""Spectra of files on the grid of their model: what ``infer`` starts with, and ``align`` writes and draws."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..._version import __version__
from ...adapters.files import frame_of
from ...adapters.formats import Columns, FileSpectrum, flaw, read_spectra
from ...agent.estimate import choose
from ...agent.spectra import Aligned, SeriesAlignment, align_theory
from ...agent.types import Array, Estimator, Frame, InputError, get_logger
from ..config import Config
from ..wiring import load_models, tabulated

_log = get_logger()

BATCH = 256
Form = Literal["npz", "csv", "xdi"]


class ChoiceError(InputError):
    """No model, or more than one, fits the energies, and none was named."""


@dataclass(frozen=True)
class Group:
    """Spectra that were aligned together."""

    rows: list[int]
    """Of each its place among all spectra."""
    model: Estimator
    aligned: Aligned
    frames: Sequence[Frame]
    """What was aligned; of computed spectra nothing."""


def read_all(files: Sequence[Path], columns: Columns | None) -> list[FileSpectrum]:
    """The spectra of all files, in their order. Raises SpectrumFileError."""
    found: list[FileSpectrum] = []
    for path in files:
        spectra = read_spectra(path, columns=columns)
        for note in dict.fromkeys(note for s in spectra for note in s.notes):
            _log.warning("read", file=str(path), note=note)
        found += spectra
    return found


def align_measured(
    spectra: Sequence[FileSpectrum], models: Sequence[Estimator], config: Config
) -> tuple[Iterator[Group], dict[int, str]]:
    """Align spectra as if they had been streamed, in the order of time where each tells its own, else as they come.

    Gives the groups, and why the others must be set aside, by their place. Raises ChoiceError.
    """
    aside: dict[int, str] = {}
    frames: dict[int, Frame] = {}
    chosen: dict[int, Estimator] = {}
    for i, s in enumerate(spectra):
        frame = frame_of(s, i + 1, config.fields)
        model = frame if isinstance(frame, str) else _choose(models, frame.energy, frame.mu, s, config)
        if isinstance(frame, str) or isinstance(model, str):
            aside[i] = str(model)
        else:
            frames[i], chosen[i] = frame, model
    rows = list(frames)
    if all(np.isfinite(f.time) for f in frames.values()):
        rows.sort(key=lambda i: frames[i].time)
    align = SeriesAlignment(config.alignment, tabulated=tabulated(config, models))

    def groups() -> Iterator[Group]:
        for _, alike in groupby(rows, lambda i: (chosen[i].name, *align.kind(frames[i]))):
            for part in batched(alike, BATCH):
                model, own = chosen[part[0]], [frames[i] for i in part]
                yield Group(part, model, align(own, model), own)

    return groups(), aside


def align_computed(
    spectra: Sequence[FileSpectrum], models: Sequence[Estimator], config: Config
) -> tuple[Iterator[Group], dict[int, str]]:
    """As :func:`align_measured` does it, of FEFF's spectra on FEFF's energies."""
    aside: dict[int, str] = {}
    alike: dict[tuple[str, int], tuple[Estimator, list[int]]] = {}
    for i, s in enumerate(spectra):
        model = flaw(s) or _choose(models, s.energy, s.mu, s, config)
        if isinstance(model, str):
            aside[i] = model
        else:
            alike.setdefault((model.name, len(s.energy)), (model, []))[1].append(i)

    def groups() -> Iterator[Group]:
        for model, rows in alike.values():
            for part in batched(rows, BATCH):
                energy, mu = np.stack([spectra[i].energy for i in part]), np.stack([spectra[i].mu for i in part])
                yield Group(part, model, align_theory(energy, mu, model.grid, model.edge.edge_ev), ())

    return groups(), aside


def batched(rows: Iterable[int], most: int) -> Iterator[list[int]]:
    """As itertools.batched of Python 3.12.

    >>> list(batched(range(5), 2))
    [[0, 1], [2, 3], [4]]
    """
    rest = iter(rows)
    while part := list(islice(rest, most)):
        yield part


def _choose(
    models: Sequence[Estimator], energy: Array, mu: Array, spectrum: FileSpectrum, config: Config
) -> Estimator | str:
    """The model of a spectrum, or why it must be set aside."""
    if config.model.use and len(models) == 1:
        return models[0]
    element, edge = config.fields.element or spectrum.element, config.fields.edge or spectrum.edge
    found = choose(models, energy, mu, element, edge)
    if not isinstance(found, tuple):
        return found
    if found[0] == "several models":
        raise ChoiceError(f"{spectrum.source}: {found[1]}; --model or --element says which")
    return f"{found[0]}: {found[1]}"


@dataclass(frozen=True)
class OnGrid:
    """One spectrum of a file and what alignment made of it."""

    spectrum: FileSpectrum
    set_aside: str = ""
    """Why it could not be aligned."""
    model: Estimator | None = None
    aligned: Aligned | None = None
    """Of the spectra that were aligned with it; ``row`` is its own."""
    row: int = 0
    frame: Frame | None = None
    """What was aligned."""

    @property
    def mu(self) -> NDArray[np.float32]:
        """(G,) on the grid and its footing."""
        assert self.aligned is not None
        return self.aligned.mu[self.row]

    @property
    def quantities(self) -> dict[str, float]:
        """As :class:`~xas_agent.agent.spectra.align.Aligned` has them."""
        return {} if self.aligned is None else {k: float(v[self.row]) for k, v in self.aligned.quantities.items()}

    @property
    def flags(self) -> tuple[str, ...]:
        return () if self.aligned is None else self.aligned.flags[self.row]


def align_files(files: Sequence[Path], config: Config, columns: Columns | None = None) -> list[OnGrid]:
    """Every spectrum of the files, in their order, on the grid of its model, or with the reason why it is not.

    Raises
    ------
    SpectrumFileError, ChoiceError
        As :func:`~xas_agent.app.jobs.infer.infer_files` raises them.
    """
    models = load_models(config)
    spectra = read_all(files, columns)
    groups, aside = align_measured(spectra, models, config)
    found = [OnGrid(s, aside.get(i, "")) for i, s in enumerate(spectra)]
    for group in groups:
        for row, i in enumerate(group.rows):
            refusal = group.aligned.refused[row]
            why = ": ".join(refusal) if refusal else ""
            found[i] = OnGrid(spectra[i], why, group.model, group.aligned, row, group.frames[row])
    return found


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

    from ..output.figures import draw_alignment

    console, drawn = Console(stderr=True), []
    for f in track(found, "drawing", console=console, disable=not console.is_terminal):
        if f.model is None or f.aligned is None or f.frame is None:
            continue
        path, title = folder / f"{name_of(f)}.png", f"{f.spectrum.id}, {f.model.name}"
        draw_alignment(path, title, f.frame.energy, f.frame.mu, f.aligned, f.row, f.model.grid, f.model.edge)
        drawn.append(path)
    return drawn


def name_of(found: OnGrid) -> str:
    """The spectrum's id as the name of a file.

    >>> name_of(OnGrid(FileSpectrum("NiO scan.xdi:0", "", 0, np.zeros(0), np.zeros(0))))
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
            table.writerow(about | numbers | {"flags": ", ".join(f.flags), "set_aside": f.set_aside})
