"""Readers of spectra in files: XDI and text columns, SSRL's collector, SPEC, Athena projects, NeXus/HDF5, npz."""

from .column_names import Columns
from .column_table import ColumnTable, UnknownColumnsError
from .read import read_spectra
from .spectrum import FileSpectrum, SpectrumFileError, flaw

__all__ = [
    "ColumnTable",
    "Columns",
    "FileSpectrum",
    "SpectrumFileError",
    "UnknownColumnsError",
    "flaw",
    "read_spectra",
]
