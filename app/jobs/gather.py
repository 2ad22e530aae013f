"""Gathers the documents of a source or of files for inspection, without an agent."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...adapters.files import DOCUMENT_SUFFIXES, FileSource, RunComposer, expand, table_documents
from ...adapters.formats import SpectrumFileError, UnknownColumnsError, read_spectra
from ...agent.types import Document, Source

MAX_DOCUMENTS = 200_000
"""Largest number of documents to examine."""
_POLL_S = 0.2


class Gathering:
    """Gathers the documents of a source until enough runs are complete.

    Parameters
    ----------
    source : Source
    runs : int
        Number of complete runs after which the gathering ends.
    """

    def __init__(self, source: Source, runs: int) -> None:
        self.documents: list[Document] = []
        self.failure: Exception | None = None
        self._source, self._runs = source, runs
        self._started: set[str] = set()
        self._stopped = 0
        self._thread = threading.Thread(target=self._read, name="source", daemon=True)

    def wait(self, timeout_s: float, show: Callable[[str], None]) -> None:
        """Gather until the source ends, enough runs are complete, the time is over, or Ctrl-C is pressed.

        Parameters
        ----------
        timeout_s : float
        show : callable
            Receives lines about the progress.
        """
        until = time.monotonic() + timeout_s
        self._thread.start()
        try:
            while self._thread.is_alive() and time.monotonic() < until:
                self._thread.join(_POLL_S)
                if self.documents:
                    show(f"{self._stopped} of {self._runs} runs complete, {len(self.documents)} documents")
        except KeyboardInterrupt:
            pass
        finally:
            self._source.close()
            self._thread.join(2.0)

    def _read(self) -> None:
        try:
            for name, doc in self._source:
                self.documents.append((name, doc))
                if name == "start" and not doc.get("xas_agent"):
                    self._started.add(str(doc.get("uid")))
                elif name == "stop":
                    self._stopped += str(doc.get("run_start")) in self._started
                if self._stopped >= self._runs or len(self.documents) >= MAX_DOCUMENTS:
                    return
        except Exception as error:  # raised in the caller's thread
            self.failure = error


@dataclass(slots=True)
class FileDocuments:
    """Documents that represent files of spectra, and the notes of the file readers."""

    documents: list[Document] = field(default_factory=list)
    files: int = 0
    notes: dict[str, None] = field(default_factory=dict)
    refused: list[SpectrumFileError] = field(default_factory=list)
    unknown: Path | None = None
    """The file whose columns are not identified; ``documents`` holds them unchanged."""


def read_files(path: Path) -> FileDocuments:
    """Return the documents of a file or folder of spectra; columns that are not identified stay unchanged.

    Raises
    ------
    SpectrumFileError
        No file can be read.
    """
    found, composer = FileDocuments(), RunComposer()
    tables: list[UnknownColumnsError] = []
    for file in expand([path]):
        found.files += 1
        try:
            spectra = read_spectra(file)
        except SpectrumFileError as error:
            found.refused.append(error)
            tables += [error] if isinstance(error, UnknownColumnsError) else []
            continue
        found.notes |= dict.fromkeys(note for spectrum in spectra for note in spectrum.notes)
        for spectrum in spectra:
            found.documents += composer.add(spectrum)
    found.documents += composer.finish()
    if not found.documents and tables:
        found.documents, found.unknown = list(table_documents(tables[0].table)), tables[0].table.path
    if not found.documents:
        raise found.refused[0]
    return found


def documents_in(path: Path) -> FileSource | None:
    """Return the source of a file of documents, or of the first such file of a folder that has no others."""
    if path.suffix.lower() in DOCUMENT_SUFFIXES and not path.is_dir():
        return FileSource(path)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        recorded = [file for file in files if file.suffix.lower() in DOCUMENT_SUFFIXES]
        if recorded and len(recorded) == len(files):
            return FileSource(recorded[0])
    return None
