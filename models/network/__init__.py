"""The Spectral Pattern Translator and what is exported with it."""

from .ensemble import Served
from .familiarity import Familiarity
from .recall import Kinship, Recall
from .spt import (
    GATHERED_POINTS,
    SPT,
    FrequencyBranch,
    GraphAttention,
    SPTShape,
    SPTSizes,
    dominant_periods,
    ensemble_weights,
    head,
    member_weights,
)

__all__ = [
    "GATHERED_POINTS",
    "SPT",
    "Familiarity",
    "FrequencyBranch",
    "GraphAttention",
    "Kinship",
    "Recall",
    "SPTShape",
    "SPTSizes",
    "Served",
    "dominant_periods",
    "ensemble_weights",
    "head",
    "member_weights",
]
