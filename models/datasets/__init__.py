"""Structures, FEFF runs and published sets → rows to train from."""

from .dataset import Labels, SplitSettings, find_sites, label, labels_of, split_materials, write_pair, write_table
from .feff import FeffSettings, find_feff
from .feff_runs import FeffSpectrum, collect
from .materials_project import read_documents, shared, told
from .structure_files import Site

__all__ = [
    "FeffSettings",
    "FeffSpectrum",
    "Labels",
    "Site",
    "SplitSettings",
    "collect",
    "find_feff",
    "find_sites",
    "label",
    "labels_of",
    "read_documents",
    "shared",
    "split_materials",
    "told",
    "write_pair",
    "write_table",
]
