"""Documents in files, and spectra of files as documents and frames."""

from .batch import expand, read_all
from .conversion import RunComposer, table_documents
from .documents import FileSink, FileSource
from .folder import FolderSource
from .frames import computed_frame_of, frame_of

__all__ = [
    "FileSink",
    "FileSource",
    "FolderSource",
    "RunComposer",
    "computed_frame_of",
    "expand",
    "frame_of",
    "read_all",
    "table_documents",
]
