"""Spectra in files: XDI and text columns, SSRL's collector, SPEC, Athena's projects, NeXus and HDF5, npz."""

from .naming import Columns
from .read import read_spectra
from .spectrum import Floats, Spectrum, SpectrumFileError, flaw

__all__ = [
    "Columns",
    "Floats",
    "Spectrum",
    "SpectrumFileError",
    "flaw",
    "read_spectra",
]
