"""The Spectral Pattern Translator and what is exported with it."""

from .ensemble import Served, save
from .ood import OODScore
from .recall import MaterialGroups, Recall
from .spt import (
    GATHERED_POINTS,
    SPT,
    FrequencyBranch,
    GraphAttention,
    SPTShape,
    SPTSizes,
    channels_of,
    dominant_periods,
    ensemble_weights,
    head,
    member_weights,
)

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
