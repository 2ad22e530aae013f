"""Values and protocols that every stage shares."""

from .decision import Decision
from .edge import STEP_WIDTH_EV, Edge
from .errors import InputError
from .estimate import DescriptorEstimate, Estimate
from .frame import Direction, Document, Formula, Frame, Received, SetAside
from .grid import Array, Grid, bin_means, interval
from .protocols import Action, Control, Estimator, Reply, Source, Stage, Status
from .settings import ConfigError, Settings, read_mapping, read_yaml, validated
from .tables import NOTHING, Table, Tabulated
from .xray import HC_EV_ANGSTROM, TableError, edge_ev, emission_ev

__all__ = [
    "HC_EV_ANGSTROM",
    "NOTHING",
    "STEP_WIDTH_EV",
    "Action",
    "Array",
    "ConfigError",
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
    "Received",
    "Reply",
    "SetAside",
    "Settings",
    "Source",
    "Stage",
    "Status",
    "Table",
    "TableError",
    "Tabulated",
    "bin_means",
    "edge_ev",
    "emission_ev",
    "interval",
    "read_mapping",
    "read_yaml",
    "validated",
]
