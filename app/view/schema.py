"""The answers of the API, as OpenAPI describes them. Times are in Unix s; null stands for NaN."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)


class Health(_Open):
    """Confirmation that the dashboard answers."""

    ok: bool
    version: str
    sessions: int
    may_act: bool
    """Whether the requester has the token."""


class SessionListed(_Open):
    """A session in the list."""

    id: str
    folder: str
    title: str
    live: bool
    """Whether the session runs."""
    started: float | None
    ended: float | None
    """End of the last run; null while the session runs."""
    frames: int
    samples: list[str]
    elements: list[str]


class ModelUsed(_Open):
    """A model that answered frames."""

    name: str
    sha256: str


class Descriptor(_Open):
    """A descriptor of the models."""

    name: str
    unit: str
    classes: list[str] = []
    """Classes of a classified descriptor."""


class RuleShown(_Open):
    """A rule of the config."""

    name: str
    action: str
    trigger: str
    quantity: str
    levels: list[float]
    unit: str
    text: str
    """The rule in words."""


class SessionAbout(SessionListed):
    """A session."""

    models: list[ModelUsed]
    versions: dict[str, str]
    config: dict[str, Any]
    """Settings without secrets; empty for a session of an earlier version."""
    source: str
    descriptors: list[Descriptor]
    rules: list[RuleShown]
    files: list[str]


class Sample(_Open):
    """A series: the frames of one sample and absorber."""

    series: str
    name: str
    element: str
    frames: int
    first: float
    last: float
    """Time of the newest frame."""


class Frame(_Open):
    """A frame: the columns of descriptors.csv, and the fields below."""

    n: int
    """Number of the frame in the session, from 1."""
    series: str
    uid: str
    time: float
    flags: str
    probabilities: dict[str, dict[str, float | None]]
    """Probability of each class, by descriptor."""


class AlignedRow(_Open):
    """An aligned spectrum."""

    n: int
    uid: str
    mu: list[float | None]


class Spectra(_Open):
    """Aligned spectra on one grid."""

    grid_ev: list[float]
    """Energies relative to the tabulated edge, eV."""
    rows: list[AlignedRow]


class Aligned(_Open):
    """An aligned spectrum with its energies relative to the tabulated edge."""

    energy_ev: list[float]
    mu: list[float | None]


class Foil(_Open):
    """The reference foil of a frame."""

    mu: list[float | None]
    e0_ev: float | None


class Measured(_Open):
    """A spectrum as measured, on the monochromator's energies."""

    energy_ev: list[float]
    mu: list[float | None]
    pre_edge: list[float | None]
    post_edge: list[float | None]
    e0_ev: float | None
    """E0 on the same energies, eV."""
    edge_step: float | None
    reference: Foil | None = None


class Spectrum(_Open):
    """The spectrum of one frame."""

    uid: str
    n: int
    aligned: Aligned | None
    measured: Measured | None
    first: Aligned | None
    """First spectrum of the series."""


class Step(_Open):
    """A status that a decision reached."""

    status: str
    time: float
    reason: str
    by: str = ""
    """Person who set the status; empty if nobody did."""


class Evidence(_Open):
    """A value on which a rule decided."""

    uid: str
    n: int | None
    quantity: str
    value: float | None


class Decision(_Open):
    """A decision."""

    id: str
    rule: str
    action: str
    args: dict[str, Any]
    reason: str
    confidence: float | None
    status: str
    status_reason: str
    time: float
    history: list[Step]
    evidence: list[Evidence]
    series: str
    can_approve: bool
    """Whether the decision waits for a person now."""


class Note(_Open):
    """A note on data set aside."""

    time: float
    reason: str
    detail: str
    uid: str


class Quality(_Open):
    """Data set aside."""

    set_aside: dict[str, int]
    gaps: dict[str, int]
    flags: dict[str, int]
    latest: list[Note]
    """Latest notes, the newest first."""


class Named(_Open):
    """A source and its state."""

    name: str
    state: str


class Sink(_Open):
    """A destination of documents."""

    name: str
    documents: int
    """Number of waiting documents."""
    lost: int
    failed: int


class Judged(_Open):
    """The last judgement of a rule."""

    name: str
    quantity: str
    value: float | None
    level: float | None
    distance: float | None
    """Distance to the nearest level, in the unit; negative beyond it."""
    unit: str
    armed: bool
    """Whether the rule may decide."""
    decided: bool = False
    """Whether the rule has made all its decisions."""


class State(_Open):
    """The present state of a session."""

    live: bool
    answers: bool
    """Whether the agent answers; if not, the other fields are its last answer with increased ages."""
    connected: bool
    paused: str
    paused_s: float | None
    halted: str
    pending: list[str]
    """Ids of the decisions that wait for a person."""
    last_document_age_s: float | None
    last_frame_age_s: float | None
    latency_ms: dict[str, float]
    queue: int
    """Number of documents that wait for the agent."""
    sources: list[Named]
    sinks: list[Sink]
    rules: list[Judged]
    message: str = ""


class Done(_Open):
    """The outcome of an order."""

    ok: bool
    error: str = ""
    decision: dict[str, Any] | None = None
