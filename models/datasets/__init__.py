"""Training rows from structures, FEFF runs and published data sets."""

from .dataset import Labels, SplitSettings, find_sites, label, labels_of, split_materials, write_pair, write_table
from .feff import FeffSettings, find_feff
from .feff_runs import FeffSpectrum, collect
from .materials_project import common_labels, describe_counts, read_documents
from .structure_files import Site

__all__ = [
    "FeffSettings",
    "FeffSpectrum",
    "Labels",
    "Site",
    "SplitSettings",
    "collect",
    "common_labels",
    "describe_counts",
    "find_feff",
    "find_sites",
    "label",
    "labels_of",
    "read_documents",
    "split_materials",
    "write_pair",
    "write_table",
]
