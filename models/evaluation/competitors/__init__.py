"""Other models, trained on the same rows and judged by the same scores."""

from .conditions import AXES, CLEAN, CONDITIONS, NOISE, Condition, disturbed
from .linear import PLS, PLSSettings, end_member_share
from .registry import COMPETITORS, NETWORKS, SPT_NAME
from .spt import FittedSPT, SPTCompetitor, from_columns
from .trials import Split, Trial, TrialOutcome, outcomes, pack, split_rows, unpack

__all__ = [
    "AXES",
    "CLEAN",
    "COMPETITORS",
    "CONDITIONS",
    "NETWORKS",
    "NOISE",
    "PLS",
    "SPT_NAME",
    "Condition",
    "FittedSPT",
    "PLSSettings",
    "SPTCompetitor",
    "Split",
    "Trial",
    "TrialOutcome",
    "disturbed",
    "end_member_share",
    "from_columns",
    "outcomes",
    "pack",
    "split_rows",
    "unpack",
]
