"""Documents in files, and spectra of files as documents and frames."""

from .batch import Batch, expand, file_names, listed, read_all, reasons_of
from .documents import FileSink, FileSource
from .folder import FolderSource
from .frames import computed_frame_of, frame_of

__all__ = [
    "Batch",
    "FileSink",
    "FileSource",
    "FolderSource",
    "computed_frame_of",
    "expand",
    "file_names",
    "frame_of",
    "listed",
    "read_all",
    "reasons_of",
]
