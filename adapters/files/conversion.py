"""Spectra of files as Bluesky documents: one Event per spectrum, one run per absorber and sample."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...agent.types import Array, Document, writable
from ..formats import ColumnTable, FileSpectrum, flaw
from .documents import FileSink

PLAN = "convert"
_SOURCE = "FILE"
_DATA_KEYS = {"it": "itrans", "fluorescence": "ifluor", "iref": "irefer", "normalised": "norm"}
"""Data keys by role, from XDI's dictionary; other roles are data keys themselves."""


class RunComposer:
    """Composes Bluesky runs of spectra, one after another.

    Spectra belong to one run as long as element, edge, sample and fields stay the same. The documents contain the
    intensities if the file does and no points were averaged, otherwise ``mu`` or ``norm``.

    Parameters
    ----------
    element, edge, sample : str, optional
        Values that replace those in the files.
    names : mapping of str to str, optional
        Names of files by their paths; other files keep their own names.
    """

    def __init__(
        self,
        element: str | None = None,
        edge: str | None = None,
        sample: str | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.runs = 0
        self._names = names or {}
        self._given = (element, edge, sample)
        self._key: tuple[str | None, ...] | None = None
        self._run: Any = None
        self._streams: dict[int, Any] = {}
        """Streams by the number of points of their spectra."""
        self._latest = 0.0

    def add(self, spectrum: FileSpectrum) -> Iterator[Document]:
        """Yield the documents of one more spectrum."""
        in_file = (spectrum.element, spectrum.edge, spectrum.sample)
        columns = columns_of(spectrum)
        data: dict[str, Any] = {_DATA_KEYS.get(role, role): column for role, column in columns.items()}
        key = (*(given or read for given, read in zip(self._given, in_file, strict=True)), *data)
        moment = moment_of(spectrum)
        if self._run is None or key != self._key:
            yield from self.finish()
            self._run = self._open_run(key, moment)
            yield "start", self._run.start_doc
        keys = {name: _key(array, "eV" if name == "energy" else "") for name, array in data.items()}
        file = self._names.get(spectrum.source, Path(spectrum.source).name)
        for name, text in (("file", file), ("spectrum", spectrum.title or spectrum.id)):
            data[name], keys[name] = writable(text), {"dtype": "string", "shape": [], "source": _SOURCE}
        points = len(spectrum.energy)
        stream = self._streams.get(points)
        if stream is None:
            stream = self._run.compose_descriptor(name="primary", data_keys=keys, time=moment)
            self._streams[points] = stream
            yield "descriptor", stream.descriptor_doc
        self._latest = max(self._latest, moment)
        yield "event", stream.compose_event(data=data, timestamps=dict.fromkeys(data, moment), time=moment)

    def state(self) -> dict[str, Any] | None:
        """Return the open run as JSON values; None without one."""
        if self._run is None:
            return None
        streams = {str(points): stream.descriptor_doc for points, stream in self._streams.items()}
        counters = dict(self._run.compose_descriptor.event_counters)
        return {
            "key": self._key,
            "start": self._run.start_doc,
            "streams": streams,
            "counters": counters,
            "latest": self._latest,
        }

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Continue the open run of another composer."""
        if state is None:
            return
        import event_model  # imported late everywhere, since it takes a second

        start, counters = dict(state["start"]), dict(state["counters"])
        uid, begun = start.pop("uid"), start.pop("time")
        self._run = event_model.compose_run(uid=uid, time=begun, metadata=start, event_counters=counters)
        for points, descriptor in state["streams"].items():
            described = {key: value for key, value in descriptor.items() if key != "run_start"}
            self._streams[int(points)] = self._run.compose_descriptor(**described)
        counters.update(state["counters"])
        self._key, self._latest = tuple(state["key"]), state["latest"]

    def finish(self, exit_status: str = "success", reason: str = "") -> Iterator[Document]:
        """Yield the RunStop of the open run, if any."""
        if self._run is not None:
            run, self._run = self._run, None
            yield "stop", run.compose_stop(exit_status=exit_status, reason=reason, time=self._latest)

    def _open_run(self, key: tuple[str | None, ...], moment: float) -> Any:
        import event_model

        self.runs += 1
        self._key, self._streams, self._latest = key, {}, moment
        named = zip(("element", "edge", "sample_name"), key, strict=False)
        metadata = {"plan_name": PLAN, **{name: value for name, value in named if value}}
        return event_model.compose_run(metadata=metadata, time=moment)


def table_documents(table: ColumnTable) -> Iterator[Document]:
    """Yield a run with one Event that holds the columns of a file under their own names."""
    import event_model

    metadata = {"plan_name": PLAN} | {name: known for name in ("element", "edge") if (known := table.known.get(name))}
    run = event_model.compose_run(metadata=metadata)
    yield "start", dict(run.start_doc)
    columns = table.named()
    keys = {name: _key(column, unit) for name, (column, unit) in columns.items()}
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    yield "descriptor", dict(stream.descriptor_doc)
    data = {name: column for name, (column, _) in columns.items()}
    yield "event", dict(stream.compose_event(data=data, timestamps=dict.fromkeys(data, 0.0)))
    yield "stop", dict(run.compose_stop())


def columns_of(spectrum: FileSpectrum) -> dict[str, Array]:
    """Return the columns, (M,) each, from which the agent computes this spectrum, by role; energies in eV."""
    channels, columns = spectrum.channels, {"energy": spectrum.energy}
    needed = {"transmission": ("i0", "it"), "fluorescence": ("i0", "fluorescence")}.get(spectrum.formula, ())
    if needed and all(role in channels for role in needed):
        columns |= {role: channels[role] for role in needed}
        if spectrum.formula == "transmission" and "iref" in channels:
            return columns | {"iref": channels["iref"]}
    else:
        columns["normalised" if spectrum.normalised else "mu"] = spectrum.mu
    return columns if spectrum.reference is None else columns | {"reference": spectrum.reference}


@dataclass(slots=True)
class ConversionSummary:
    """Counts and messages of a conversion."""

    files: int = 0
    spectra: int = 0
    runs: int = 0
    flaws: list[str] = field(default_factory=list)
    """Spectra that the agent will set aside, with the reasons."""
    interrupted: bool = False
    """Whether Ctrl-C ended the conversion."""
    notes: list[str] = field(default_factory=list)
    """Guesses, repairs and omissions of the readers."""


def convert(
    files: Iterable[tuple[Path, list[FileSpectrum]]],
    out: str | Path,
    *,
    element: str | None = None,
    edge: str | None = None,
    sample: str | None = None,
    names: Mapping[str, str] | None = None,
) -> ConversionSummary:
    """Write the spectra of files as documents, each as soon as it is read.

    After an error the open run is closed with the exit status ``abort``, after Ctrl-C with ``success``.

    Parameters
    ----------
    files : iterable of (Path, list of FileSpectrum)
        Files with their spectra, as :func:`read_all` yields them.
    out : str or Path
        File to write, .jsonl or .msgpack.
    element, edge, sample, names
        As for :class:`RunComposer`.

    Returns
    -------
    ConversionSummary

    Raises
    ------
    DocumentFileError
        ``out`` has another suffix or cannot be written.
    SpectrumFileError
        A file of ``files`` cannot be read.
    """
    summary, composer, sink = ConversionSummary(), RunComposer(element, edge, sample, names), FileSink(out)
    ending: tuple[str, str] = ("success", "")
    try:
        for path, spectra in files:
            summary.files += 1
            for spectrum in spectra:
                for name, doc in composer.add(spectrum):
                    sink(name, doc)
                if why := flaw(spectrum):
                    summary.flaws.append(f"{spectrum.id}: {why}")
            summary.spectra += len(spectra)
            summary.notes += dict.fromkeys(f"{path}: {note}" for spectrum in spectra for note in spectrum.notes)
    except KeyboardInterrupt:
        summary.interrupted = True
    except Exception as error:
        ending = ("abort", str(error))
        raise
    finally:
        for name, doc in composer.finish(*ending):
            sink(name, doc)
        sink.close()
        summary.runs = composer.runs
    return summary


def _key(array: Array, units: str) -> dict[str, Any]:
    return {"dtype": "array", "shape": [len(array)], "source": _SOURCE, "units": units}


def moment_of(spectrum: FileSpectrum) -> float:
    """Return the start of the scan, Unix s; if the file does not state it, the time of the file's last change."""
    if spectrum.time is not None:
        return spectrum.time
    try:
        return Path(spectrum.source).stat().st_mtime
    except OSError:
        return time.time()
