"""Spectra of files as Bluesky documents: one Event per spectrum, in runs of one absorber and sample each."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import event_model

from ...agent.types import Array, Document
from ..formats import Columns, FileSpectrum, flaw, read_spectra
from .documents import FileSink

PLAN = "convert"
_SOURCE = "FILE"
_RAW = {"i0": "i0", "it": "itrans", "if": "ifluor", "ir": "irefer"}
"""Data keys of the intensities, as XDI calls them and the agent knows them."""


class Conversion:
    """Makes documents of spectra as they come.

    A run goes on while element, edge, sample and fields stay the same. What a spectrum was made of, the agent makes
    it of again: intensities where the file has them and no points were averaged, else ``mu`` or ``norm``.

    Args:
        element, edge, sample: over what the files say.
    """

    def __init__(self, element: str | None = None, edge: str | None = None, sample: str | None = None) -> None:
        self.runs = 0
        self._said = (element, edge, sample)
        self._key: tuple[str | None, ...] | None = None
        self._run: Any = None
        self._streams: dict[int, Any] = {}
        """By the number of points."""
        self._latest = 0.0

    def take(self, spectrum: FileSpectrum) -> Iterator[Document]:
        """The documents that one spectrum adds."""
        own = (spectrum.element, spectrum.edge, spectrum.sample)
        data: dict[str, Any] = dict(columns_of(spectrum))
        key = (*(said or found for said, found in zip(self._said, own, strict=True)), *data)
        moment = _moment(spectrum)
        if self._run is None or key != self._key:
            yield from self.finish()
            self._run = self._begun(key, moment)
            yield "start", self._run.start_doc
        keys = {name: _key(array, "eV" if name == "energy" else "") for name, array in data.items()}
        for name, text in (("file", Path(spectrum.source).name), ("spectrum", spectrum.title or spectrum.id)):
            data[name], keys[name] = text, {"dtype": "string", "shape": [], "source": _SOURCE}
        points = len(spectrum.energy)
        stream = self._streams.get(points)
        if stream is None:
            stream = self._run.compose_descriptor(name="primary", data_keys=keys, time=moment)
            self._streams[points] = stream
            yield "descriptor", stream.descriptor_doc
        self._latest = max(self._latest, moment)
        yield "event", stream.compose_event(data=data, timestamps=dict.fromkeys(data, moment), time=moment)

    def finish(self, exit_status: str = "success", reason: str = "") -> Iterator[Document]:
        """The end of the run that is open, if one is."""
        if self._run is not None:
            run, self._run = self._run, None
            yield "stop", run.compose_stop(exit_status=exit_status, reason=reason, time=self._latest)

    def _begun(self, key: tuple[str | None, ...], moment: float) -> Any:
        self.runs += 1
        self._key, self._streams, self._latest = key, {}, moment
        named = zip(("element", "edge", "sample_name"), key, strict=False)
        metadata = {"plan_name": PLAN, **{name: value for name, value in named if value}}
        return event_model.compose_run(metadata=metadata, time=moment)


def columns_of(spectrum: FileSpectrum) -> dict[str, Array]:
    """The arrays, each (M,), of which the agent makes this spectrum: by data key, energies in eV."""
    channels, found = spectrum.channels, {"energy": spectrum.energy}
    needed = {"transmission": ("i0", "it"), "fluorescence": ("i0", "if")}.get(spectrum.formula, ())
    if needed and all(role in channels for role in needed):
        found |= {_RAW[role]: channels[role] for role in needed}
        if spectrum.formula == "transmission" and "ir" in channels:
            return found | {_RAW["ir"]: channels["ir"]}
    else:
        found["norm" if spectrum.normalised else "mu"] = spectrum.mu
    return found if spectrum.reference is None else found | {"reference": spectrum.reference}


@dataclass(slots=True)
class Converted:
    """What a conversion did."""

    files: int = 0
    spectra: int = 0
    runs: int = 0
    flaws: list[str] = field(default_factory=list)
    """Spectra that the agent will set aside, and why."""
    notes: list[str] = field(default_factory=list)
    """What was guessed, repaired or left out."""


def convert(
    found: Iterable[tuple[Path, list[FileSpectrum]]],
    out: str | Path,
    *,
    element: str | None = None,
    edge: str | None = None,
    sample: str | None = None,
) -> Converted:
    """Write the spectra of files as documents, each as soon as it is there (.jsonl or .msgpack).

    A run that an error cuts short is closed with the exit status ``abort``; Ctrl-C is an end like any other.

    Raises:
        DocumentFileError: ``out`` is of another kind.
        SpectrumFileError: as ``found`` raises it.
    """
    done, conversion, sink = Converted(), Conversion(element, edge, sample), FileSink(out)
    ending: tuple[str, str] = ("success", "")
    try:
        for path, spectra in found:
            done.files += 1
            for spectrum in spectra:
                for name, doc in conversion.take(spectrum):
                    sink(name, doc)
                if why := flaw(spectrum):
                    done.flaws.append(f"{spectrum.id}: {why}")
            done.spectra += len(spectra)
            done.notes += dict.fromkeys(f"{path}: {note}" for spectrum in spectra for note in spectrum.notes)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        ending = ("abort", str(error))
        raise
    finally:
        for name, doc in conversion.finish(*ending):
            sink(name, doc)
        sink.close()
        done.runs = conversion.runs
    return done


def read_all(files: Iterable[Path], columns: Columns | None = None) -> Iterator[tuple[Path, list[FileSpectrum]]]:
    """The files in their order, each with its spectra. Raises SpectrumFileError."""
    for path in files:
        yield path, read_spectra(path, columns=columns)


def _key(array: Array, units: str) -> dict[str, Any]:
    return {"dtype": "array", "shape": [len(array)], "source": _SOURCE, "units": units}


def _moment(spectrum: FileSpectrum) -> float:
    """Unix seconds of the scan's start; where the file does not tell, of the file's last change."""
    if spectrum.time is not None:
        return spectrum.time
    try:
        return Path(spectrum.source).stat().st_mtime
    except OSError:
        return time.time()
