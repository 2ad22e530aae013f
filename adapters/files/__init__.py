"""Documents in files, and spectra of files as documents and frames."""

from .appended import AppendedFile
from .batch import Batch, by_reason, expand, file_names, read_all, reasons_of
from .conversion import RunComposer, table_documents
from .documents import DOCUMENT_SUFFIXES, FileSink, FileSource
from .folder import FolderSource, is_ignored
from .frames import computed_frame_of, frame_of

__all__ = [
    "DOCUMENT_SUFFIXES",
    "AppendedFile",
    "Batch",
    "FileSink",
    "FileSource",
    "FolderSource",
    "RunComposer",
    "by_reason",
    "computed_frame_of",
    "expand",
    "file_names",
    "frame_of",
    "is_ignored",
    "read_all",
    "reasons_of",
    "table_documents",
]
