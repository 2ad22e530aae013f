"""Documents in files, and spectra of files as documents and frames."""

from .appended import AppendedFile
from .batch import Batch, expand, file_names, listed, read_all, reasons_of
from .conversion import RunComposer, table_documents
from .documents import FileSink, FileSource
from .folder import FolderSource
from .frames import computed_frame_of, frame_of

__all__ = [
    "AppendedFile",
    "Batch",
    "FileSink",
    "FileSource",
    "FolderSource",
    "RunComposer",
    "computed_frame_of",
    "expand",
    "file_names",
    "frame_of",
    "listed",
    "read_all",
    "reasons_of",
    "table_documents",
]
