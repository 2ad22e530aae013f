"""Readers of spectra in files: XDI and text, SSRL's collector, SPEC, Athena projects, NeXus/HDF5, npz, Parquet."""

from .column_names import Columns
from .column_table import ColumnTable, UnknownColumnsError
from .parquet import iterate_parquet, parquet_rows
from .read import read_spectra
from .spectrum import FileSpectrum, SpectrumFileError, flaw

__all__ = [
    "ColumnTable",
    "Columns",
    "FileSpectrum",
    "SpectrumFileError",
    "UnknownColumnsError",
    "flaw",
    "iterate_parquet",
    "parquet_rows",
    "read_spectra",
]
