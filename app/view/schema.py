"""The answers of the API, for its description in OpenAPI. Times are Unix s; NaN is null."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)


class Health(_Open):
    """That the dashboard answers."""

    ok: bool
    version: str
    sessions: int
    may_act: bool
    """Whether who asks has the token."""


class SessionListed(_Open):
    """A session in the list."""

    id: str
    folder: str
    title: str
    live: bool
    """Whether it runs."""
    started: float | None
    ended: float | None
    """End of its last run; null while it runs."""
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
    """Classes of a classified one."""


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
    """Settings without what may be secret; empty for a session of an earlier version."""
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
    """Time of its newest frame."""


class Frame(_Open):
    """A frame: the columns of descriptors.csv, and these."""

    n: int
    """Number in the session, from 1."""
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
    """On the same energies."""
    edge_step: float | None
    reference: Foil | None = None


class Spectrum(_Open):
    """The spectrum of one frame."""

    uid: str
    n: int
    aligned: Aligned | None
    measured: Measured | None
    first: Aligned | None
    """The first of its series."""


class Step(_Open):
    """A status that a decision came to."""

    status: str
    time: float
    reason: str
    by: str = ""
    """Person who brought it there."""


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
    """Whether it waits for a person now."""


class Note(_Open):
    """A note on data set aside."""

    time: float
    reason: str
    detail: str
    uid: str


class Quality(_Open):
    """What was set aside."""

    set_aside: dict[str, int]
    gaps: dict[str, int]
    flags: dict[str, int]
    latest: list[Note]
    """The newest first."""


class Named(_Open):
    """A source and its state."""

    name: str
    state: str


class Sink(_Open):
    """Where documents go."""

    name: str
    documents: int
    """Number that waits."""
    lost: int
    failed: int


class Judged(_Open):
    """What a rule judged last."""

    name: str
    quantity: str
    value: float | None
    level: float | None
    distance: float | None
    """To the nearest level, in the unit; negative beyond it."""
    unit: str
    armed: bool
    """Whether it may decide."""
    decided: bool = False
    """Whether it has made all decisions that it may."""


class State(_Open):
    """What a session does now."""

    live: bool
    answers: bool
    """Whether the agent answers; while it does not, the rest is what it said last, with the ages grown."""
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
    """What became of an order."""

    ok: bool
    error: str = ""
    decision: dict[str, Any] | None = None
