"""The report that ``xas-agent evaluate`` writes."""

from .comparison_figures import curves, differences, score_bars
from .kept import Arrays, Piece, run_all
from .model_figures import confusion_matrices, coverage, parity, reliability, roc_curves
from .study_figures import delithiation, detector, embedding
from .style import BLUE, GREY, RED, STYLE, WIDTH, panelled
from .tables import FigureOfMerit, bootstrap, calibration, coverage_interval, paired_bootstrap, score
from .write import Section, plain, slug, write

__all__ = [
    "BLUE",
    "GREY",
    "RED",
    "STYLE",
    "WIDTH",
    "Arrays",
    "FigureOfMerit",
    "Piece",
    "Section",
    "bootstrap",
    "calibration",
    "confusion_matrices",
    "coverage",
    "coverage_interval",
    "curves",
    "delithiation",
    "detector",
    "differences",
    "embedding",
    "paired_bootstrap",
    "panelled",
    "parity",
    "plain",
    "reliability",
    "roc_curves",
    "run_all",
    "score",
    "score_bars",
    "slug",
    "write",
]
