"""Training rows from structures, FEFF runs and published data sets."""

from .dataset import Labels, SplitSettings, find_sites, label, labels_of, split_materials, write_pair, write_table
from .disorder import QuenchSettings, RattleSettings
from .feff import FeffSettings, find_feff
from .feff_runs import FeffSpectrum, collect
from .materials_project import common_labels, describe_counts, read_documents
from .omnixas import PARTS, read_omnixas
from .shards import Merged, Row, add_to_set, append, ids_of, merge, read_rows, tables, usable
from .structure_files import Site

__all__ = [
    "PARTS",
    "FeffSettings",
    "FeffSpectrum",
    "Labels",
    "Merged",
    "QuenchSettings",
    "RattleSettings",
    "Row",
    "Site",
    "SplitSettings",
    "add_to_set",
    "append",
    "collect",
    "common_labels",
    "describe_counts",
    "find_feff",
    "find_sites",
    "ids_of",
    "label",
    "labels_of",
    "merge",
    "read_documents",
    "read_omnixas",
    "read_rows",
    "split_materials",
    "tables",
    "usable",
    "write_pair",
    "write_table",
]
