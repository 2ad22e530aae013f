"""Values and protocols that all stages share."""

from .actions import RepeatFrame, SetValue, args_of_decision, check_action_args
from .array import Array
from .decision import ADVICE, Decision, is_final
from .edge import STEP_WIDTH_EV, Edge
from .encoding import decoded, writable
from .errors import InputError
from .estimate import ESTIMATE_PARTS, DescriptorEstimate, Estimate, Reach, keys_of
from .estimates import Classes, Estimates, means_of
from .frame import DOCUMENT_NAMES, REPLAYED_S, Direction, Document, Formula, Frame, Received, SetAside
from .grid import Grid, bin_means, continued, right_index
from .lines import Lines, Measured, nodes
from .log import LOGGER_NAME, Logger, get_logger, line_of
from .memory import Memory
from .numbers import as_count, as_number, as_numbers, unwrap
from .protocols import (
    COURSE_OF_A_RUN,
    ROBOT_ACTIONS,
    ROBOT_ORDERS,
    URGENT_ACTIONS,
    Action,
    AgedSource,
    Control,
    DurableSource,
    Estimator,
    Reply,
    RobotOrder,
    SelectiveControl,
    SharedSource,
    Source,
    Stage,
    Status,
)
from .reasons import Flag, Reason, Refusal
from .robust import MAD_TO_SD, hodges_lehmann, mad_sd, median, medians, nan_median, theil_sen, theil_sen_slopes
from .run import RunDocument, RunInfo
from .scan import Scan
from .settings import (
    ConfigError,
    Described,
    Settings,
    content_of,
    described_fields,
    mapping_of,
    plain_message,
    read_mapping,
    read_yaml,
    validate_settings,
)
from .sizes import size_of
from .slope import SeriesSlope
from .tables import NO_TABLES, AbsorptionTable, Tabulated
from .trend import Z90, TrendLine, robust_line
from .xray import ELEMENTS, HC_EV_ANGSTROM, TableError, all_edges, edge_ev, emission_ev, is_edge

__all__ = [
    "ADVICE",
    "COURSE_OF_A_RUN",
    "DOCUMENT_NAMES",
    "ELEMENTS",
    "ESTIMATE_PARTS",
    "HC_EV_ANGSTROM",
    "LOGGER_NAME",
    "MAD_TO_SD",
    "NO_TABLES",
    "REPLAYED_S",
    "ROBOT_ACTIONS",
    "ROBOT_ORDERS",
    "STEP_WIDTH_EV",
    "URGENT_ACTIONS",
    "Z90",
    "AbsorptionTable",
    "Action",
    "AgedSource",
    "Array",
    "Classes",
    "ConfigError",
    "Control",
    "Decision",
    "Described",
    "DescriptorEstimate",
    "Direction",
    "Document",
    "DurableSource",
    "Edge",
    "Estimate",
    "Estimates",
    "Estimator",
    "Flag",
    "Formula",
    "Frame",
    "Grid",
    "InputError",
    "Lines",
    "Logger",
    "Measured",
    "Memory",
    "Reach",
    "Reason",
    "Received",
    "Refusal",
    "RepeatFrame",
    "Reply",
    "RobotOrder",
    "RunDocument",
    "RunInfo",
    "Scan",
    "SelectiveControl",
    "SeriesSlope",
    "SetAside",
    "SetValue",
    "Settings",
    "SharedSource",
    "Source",
    "Stage",
    "Status",
    "TableError",
    "Tabulated",
    "TrendLine",
    "all_edges",
    "args_of_decision",
    "as_count",
    "as_number",
    "as_numbers",
    "bin_means",
    "check_action_args",
    "content_of",
    "continued",
    "decoded",
    "described_fields",
    "edge_ev",
    "emission_ev",
    "get_logger",
    "hodges_lehmann",
    "is_edge",
    "is_final",
    "keys_of",
    "line_of",
    "mad_sd",
    "mapping_of",
    "means_of",
    "median",
    "medians",
    "nan_median",
    "nodes",
    "plain_message",
    "read_mapping",
    "read_yaml",
    "right_index",
    "robust_line",
    "size_of",
    "theil_sen",
    "theil_sen_slopes",
    "unwrap",
    "validate_settings",
    "writable",
]
