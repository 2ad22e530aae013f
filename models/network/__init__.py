"""The Spectral Pattern Translator, and the modules that are exported with it."""

from .branches import FrequencyBranch, GraphAttention
from .ensemble import Served, save
from .ood import OODScore
from .recall import MaterialGroups, Recall
from .shape import GATHERED_POINTS, SPTShape, SPTSizes, dominant_periods
from .spt import SPT, channels_of, ensemble_weights, head, member_weights

__all__ = [
    "GATHERED_POINTS",
    "SPT",
    "FrequencyBranch",
    "GraphAttention",
    "MaterialGroups",
    "OODScore",
    "Recall",
    "SPTShape",
    "SPTSizes",
    "Served",
    "channels_of",
    "dominant_periods",
    "ensemble_weights",
    "head",
    "member_weights",
    "save",
]
