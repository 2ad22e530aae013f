"""The package for programs and notebooks: functions on arrays, tables, plots and a live widget."""

from ..output.data_frames import Results
from .estimates import SetAsideWarning, infer
from .plots import plot_alignment, plot_series
from .server import InferenceServer
from .sessions import read_session
from .widget import widget

__all__ = [
    "InferenceServer",
    "Results",
    "SetAsideWarning",
    "infer",
    "plot_alignment",
    "plot_series",
    "read_session",
    "widget",
]
