"""Arrays in external files: Resource and Datum, StreamResource and StreamDatum."""

from .files import AssetSettings
from .filler import AssetFiller
from .hdf5 import missing_source

__all__ = [
    "AssetFiller",
    "AssetSettings",
    "missing_source",
]
