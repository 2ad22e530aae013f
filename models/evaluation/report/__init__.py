"""The report that ``xas-agent evaluate`` writes."""

from .figures import coverage, curves, delithiation, detector, embedding, reliability
from .kept import Arrays, Piece, Progress, run_all
from .style import BLUE, GREY, RED, STYLE, WIDTH, panelled
from .tables import FigureOfMerit, calibration, coverage_interval, paired_bootstrap, score
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
    "Progress",
    "Section",
    "calibration",
    "coverage",
    "coverage_interval",
    "curves",
    "delithiation",
    "detector",
    "embedding",
    "paired_bootstrap",
    "panelled",
    "plain",
    "reliability",
    "run_all",
    "score",
    "slug",
    "write",
]
