"""Documents in files, and files of spectra as documents."""

from .documents import FileSink, FileSource
from .folder import FolderSource
from .frames import computed_frame_of, frame_of

__all__ = [
    "FileSink",
    "FileSource",
    "FolderSource",
    "computed_frame_of",
    "frame_of",
]
