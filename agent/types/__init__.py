"""Values and protocols that every stage shares."""

from .decision import Decision
from .edge import STEP_WIDTH_EV, Edge
from .errors import InputError
from .estimate import DescriptorEstimate, Estimate
from .frame import Direction, Document, Formula, Frame, Received, SetAside
from .grid import Array, Grid, bin_means, interval
from .log import Logger, get_logger
from .protocols import Action, Control, Estimator, Reply, Source, Stage, Status
from .reasons import Reason
from .run import RunDocument, RunInfo
from .settings import Settings
from .tables import NOTHING, AbsorptionTable, Tabulated

__all__ = [
    "NOTHING",
    "STEP_WIDTH_EV",
    "AbsorptionTable",
    "Action",
    "Array",
    "Control",
    "Decision",
    "DescriptorEstimate",
    "Direction",
    "Document",
    "Edge",
    "Estimate",
    "Estimator",
    "Formula",
    "Frame",
    "Grid",
    "InputError",
    "Logger",
    "Reason",
    "Received",
    "Reply",
    "RunDocument",
    "RunInfo",
    "SetAside",
    "Settings",
    "Source",
    "Stage",
    "Status",
    "Tabulated",
    "bin_means",
    "get_logger",
    "interval",
]
