"""The SPT and its competitors by name."""

from ..contract import Competitor
from .classical import DECISION_TREE, EXTRA_TREES, NEAREST_NEIGHBOURS, RANDOM_FOREST, XGBOOST
from .deep import AMFORMER, CNN, FT_TRANSFORMER
from .spt import SPTCompetitor

_SPT: Competitor = SPTCompetitor()
SPT_NAME = _SPT.name
COMPETITORS: dict[str, Competitor] = {
    c.name: c
    for c in (NEAREST_NEIGHBOURS, DECISION_TREE, EXTRA_TREES, RANDOM_FOREST, XGBOOST, CNN, FT_TRANSFORMER, AMFORMER)
}
ALL_COMPETITORS = COMPETITORS | {SPT_NAME: _SPT}
NETWORKS = frozenset({CNN.name, FT_TRANSFORMER.name, AMFORMER.name, SPT_NAME})
"""Competitors that depend on a seed, so that several are trained and averaged."""
