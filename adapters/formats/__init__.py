"""Spectra in files: XDI and text columns, SSRL's collector, SPEC, Athena's projects, NeXus and HDF5, npz."""

from .column_names import Columns
from .read import read_spectra
from .spectrum import FileSpectrum, SpectrumFileError, flaw

__all__ = [
    "Columns",
    "FileSpectrum",
    "SpectrumFileError",
    "flaw",
    "read_spectra",
]
