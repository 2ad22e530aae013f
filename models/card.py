"""The model card: everything that serving needs to know about a model, except its weights."""

import hashlib
import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import yaml
from pydantic import Field, model_validator

from ..agent.types import (
    Array,
    ConfigError,
    Edge,
    Grid,
    InputError,
    Reach,
    SeriesSlope,
    Settings,
    content_of,
    mapping_of,
    validate_settings,
)

HIT_E = 0.35
"""Largest error of the mean oxidation state that counts as a hit, e."""
LEAST_R2 = 0.25
"""Smallest R² of a descriptor to show. Below it, the errors are at least 87 % as large as the scatter of the true
values (√(1 − R²)), so that a curve would show hardly more than the mean of the training set."""

FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
SHA256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ModelError(InputError):
    """A model is unusable; the message states the folder, what was found and what was expected."""


class GridCard(Settings):
    """A :class:`~xas_agent.agent.types.grid.Grid`, in eV relative to the tabulated edge, on FEFF's energy scale."""

    start_ev: float
    """First energy of the grid, eV from the tabulated edge."""
    stop_ev: float
    """Last energy of the grid, eV from the tabulated edge."""
    step_ev: float
    """Step of the grid, eV."""
    foot_ev: tuple[float, float]
    """Window below the edge whose mean becomes 0, eV from the tabulated edge."""
    anchor_ev: tuple[float, float]
    """Window above the edge whose mean becomes 1, eV from the tabulated edge."""
    short_stop_ev: float | None = None
    """Energy up to which every spectrum must be known, eV from the tabulated edge; a scan may end there, and is
    unknown (NaN) on the rest of the grid. Unset: stop_ev."""

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        self.grid()
        return self

    def grid(self) -> Grid:
        """Return the grid."""
        return Grid(self.start_ev, self.stop_ev, self.step_ev, self.foot_ev, self.anchor_ev, self.short_stop_ev)


class WindowScale(Settings):
    """Conformal factor of spectra that end at one energy."""

    stop_ev: float
    """Last known energy, eV from the tabulated edge."""
    scale: float
    """Conformal factor."""


class Interval(Settings):
    """Split-conformal interval: ``mean ± scale · sqrt(sd² + floor²)``."""

    scale: float
    """Conformal factor of spectra that cover the whole grid."""
    floor: float
    """Smallest standard deviation, in the descriptor's unit."""
    coverage: float = 0.9
    """Share of the calibration rows that the interval contains."""
    windows: tuple[WindowScale, ...] = ()
    """Conformal factors by the end of a spectrum, in rising order; the last is ``scale``. They are interpolated
    between the ends. Empty: ``scale`` for all spectra."""

    @property
    def least_half_width(self) -> float:
        """Half-width of the narrowest interval."""
        return min([w.scale for w in self.windows] or [self.scale]) * self.floor

    def half_width(self, sd: Array, stop_ev: Array) -> Array:
        """Return the half-widths (N,) of estimates with standard deviations ``sd`` (N,).

        Parameters
        ----------
        stop_ev : (N,) last known energies of the spectra, eV from the tabulated edge
        """
        scale = self.scale
        if self.windows:
            scale = np.interp(stop_ev, [w.stop_ev for w in self.windows], [w.scale for w in self.windows])
        return scale * np.hypot(sd, self.floor)


class DescriptorCard(Settings):
    """One descriptor."""

    name: str
    kind: Literal["classified", "regressed"]
    unit: str = ""
    classes: tuple[int, ...] = ()
    mean_head: str | None = None
    """Regressed quantity with the mean and interval of a classified descriptor (OS_mean for OS)."""
    lowest: float | None = None
    """Lowest meaningful value of a regressed descriptor (a length cannot be negative)."""
    mixture: bool = True
    """Whether the descriptor has a meaning for a mixture of sites, as measured spectra show."""
    interval: Interval

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest possible value."""
        if self.classes:
            return float(self.classes[0]), float(self.classes[-1])
        return -math.inf if self.lowest is None else self.lowest, math.inf

    def reach(self) -> Reach:
        """Return the limits of the estimates."""
        return Reach(*self.bounds, self.interval.least_half_width / 2)


class OffsetCard(Settings):
    """Offset FEFF − experiment, to add to calibrated energies."""

    value_ev: float
    """Offset, eV."""
    sd_ev: float
    """Standard deviation of the offset, eV; it widens the intervals."""
    source: str
    """Standards to which the offset was fitted."""


class SlopeCard(Settings):
    """Relation of a descriptor's estimates to its true values along a series of one sample, such as a charge."""

    value: float = Field(gt=0)
    """Change of the estimates per change of the true value."""
    sd: float = Field(ge=0)
    """Standard deviation of ``value`` between series."""
    scatter_sd: float = Field(default=0.0, ge=0)
    """Standard deviation of the true values about a line through the estimates, in the descriptor's unit."""
    source: str
    """Series from which these values were determined."""

    def slope(self) -> SeriesSlope:
        """Return the values without their source."""
        return SeriesSlope(self.value, self.sd, self.scatter_sd)


class DomainCard(Settings):
    """Further differences between FEFF and measurement; the default is the identity.

    With E relative to the tabulated edge, o the offset, G a Gaussian and s a smooth step,
    μ_measured(E) = a (μ_FEFF ∗ G)(E′) + (1 − a) s(E′) with E′ = E / scale + o. Serving inverts everything but G,
    whose inversion would amplify noise. Training applies G to its rows, and the other differences within their
    uncertainty.
    """

    scale: float = Field(default=1.0, gt=0.5, lt=2)
    """Energy scale: ratio of measured to FEFF's energies, both relative to the tabulated edge."""
    scale_sd: float = Field(default=0.0, ge=0)
    """Standard deviation of ``scale``."""
    amplitude: float = Field(default=1.0, gt=0)
    """Amplitude of the measured fine structure relative to FEFF's."""
    amplitude_sd: float = Field(default=0.0, ge=0)
    """Standard deviation of ``amplitude``."""
    step_ev: float | None = None
    """Position of the step s, eV from the tabulated edge in E′. Unset: serving does not correct the amplitude; only
    training includes it."""
    broadening_ev: float = Field(default=0.0, ge=0)
    """σ of G, eV: broadening by core hole and instrument in addition to FEFF's own."""
    broadening_sd_ev: float = Field(default=0.0, ge=0)
    """Standard deviation of ``broadening_ev``, eV."""
    metal_gap_ev: float = Field(default=6.0, ge=0)
    """Offset of a measured metal minus that of the card, eV, where the score expects measured metals; it expects
    other examples of unfamiliar spectra, such as sulphides, up to half as far."""
    misfit_sd: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Standard deviation, by descriptor in its unit, of the estimates of measured standards about the known values,
    beyond all other causes. It widens the intervals of measured spectra (``xas-agent standards``)."""
    series_slope: dict[str, SlopeCard] = Field(default_factory=dict)
    """Relation of the estimates to the true values along a series, by descriptor; anchors use it."""
    source: str = "not fitted"
    """Standards to which these values were fitted."""


class StandardCard(Settings):
    """A measured spectrum of a known compound with the model's answer (``xas-agent standards --write``)."""

    compound: str
    """Formula or name."""
    known: float | None
    """Known mean oxidation state, e; None if unknown."""
    mean: float
    """Mean oxidation state of the answer, e."""
    lo: float
    """Lower end of the answer's 90 % interval, e."""
    hi: float
    """Upper end of the answer's 90 % interval, e."""
    score: float
    """Out-of-distribution score."""
    flagged: bool
    """Whether the answer is flagged as out of distribution."""
    verdict: str
    """``hit`` (within :data:`HIT_E`) or ``miss`` for an oxide; whether it is flagged, for a compound that no model
    knows; otherwise empty."""


class Card(Settings):
    """Contents of ``card.yaml``.

    The model's output columns are, in this order: the probabilities of the classes of each classified descriptor; the
    mean of each regressed quantity; the standard deviation of each; the out-of-distribution score.
    """

    name: str
    absorber: str
    edge: str
    edge_ev: float
    """Tabulated energy of the edge, eV."""
    grid: GridCard
    descriptors: tuple[DescriptorCard, ...]
    regressed: tuple[str, ...]
    """Regressed quantities in the order of the output, in the units of their descriptors."""
    feff_minus_experiment: OffsetCard
    domain: DomainCard = DomainCard()
    ood: str
    """Description of the out-of-distribution score, which has the threshold 1."""
    training: dict[str, Any]
    metrics: dict[str, Any]
    standards: tuple[StandardCard, ...] = ()
    """Measured spectra of known compounds, as served by this model."""
    limits: tuple[str, ...] = ()
    """Limits of the model, in sentences."""
    licence: str
    cite: tuple[str, ...]
    sha256: SHA256
    """SHA-256 of ``model.ts``; a file with another hash is refused."""
    files: dict[FileName, SHA256] = Field(default_factory=dict)
    """SHA-256 of further files of the same network, by name, for other engines (``xas-agent models export``)."""

    @model_validator(mode="after")
    def _domain_is_of_descriptors(self) -> Self:
        known = [d.name for d in self.descriptors]
        for key in ("misfit_sd", "series_slope"):
            if unknown := set(getattr(self.domain, key)) - set(known):
                raise ValueError(f"{key}: found {', '.join(sorted(unknown))}, expected {', '.join(known)}")
        return self

    @property
    def hardly_known(self) -> frozenset[str]:
        """Descriptors with an R² below :data:`LEAST_R2` on the rows of the metrics."""
        names = {d.name for d in self.descriptors}
        scores = {name: found for name, found in self.metrics.items() if name in names and isinstance(found, dict)}
        return frozenset(n for n, found in scores.items() if found["metric"] == "R2" and found["value"] < LEAST_R2)

    def edge_of_absorber(self) -> Edge:
        """Return the edge and the corrections that alignment applies."""
        offset, d = self.feff_minus_experiment, self.domain
        slopes = {name: course.slope() for name, course in d.series_slope.items()}
        edge = Edge(self.edge_ev, offset.value_ev, offset.sd_ev, d.scale, d.scale_sd)
        edge = replace(edge, misfit_sd=d.misfit_sd, series_slopes=slopes)
        if d.step_ev is None:
            return edge
        return replace(edge, amplitude=d.amplitude, amplitude_sd=d.amplitude_sd, step_ev=d.step_ev)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_card(folder: Path) -> Card:
    """Read and check ``folder/card.yaml``.

    Raises
    ------
    ModelError
        The folder or card is missing, or the card has a missing, unknown or invalid key.
    """
    path = folder / "card.yaml"
    if not path.is_file():
        raise ModelError(f"{folder}: not a model folder: no card.yaml in it; expected model.ts and card.yaml")
    try:
        return _parsed(content_of(path), str(path))
    except ConfigError as e:
        raise ModelError(str(e)) from None


@lru_cache(maxsize=64)
def _parsed(content: bytes, source: str) -> Card:
    """Return the card in a file; cached, since most commands read each card twice."""
    return validate_settings(mapping_of(content, source), Card, source)


class _Line(dict[str, Any]):
    """A mapping to write on one line."""


class _CardDumper(yaml.SafeDumper):
    """Writes a :class:`_Line` on one line."""


_CardDumper.add_representer(
    _Line, lambda dumper, line: dumper.represent_mapping("tag:yaml.org,2002:map", line, flow_style=True)
)


def write_card(folder: Path, card: Card) -> None:
    """Write ``folder/card.yaml``, with a line for each standard."""
    content = card.model_dump(mode="json", exclude=None if card.files else {"files"})
    content["standards"] = [_Line(standard) for standard in content["standards"]]
    text = yaml.dump(content, Dumper=_CardDumper, sort_keys=False, allow_unicode=True, width=110)
    (folder / "card.yaml").write_text(text, encoding="utf-8")


def verify(folder: Path) -> Card:
    """Read the card of a model folder and check that ``model.ts`` and the further files of the card match it.

    Raises
    ------
    ModelError
        The card cannot be read, a file is missing, or its SHA-256 is not the card's.
    """
    card = read_card(folder)
    for name, expected in {"model.ts": card.sha256, **card.files}.items():
        file = folder / name
        if not file.is_file():
            raise ModelError(f"{folder}: no {name} beside card.yaml")
        actual = sha256_of(file)
        if actual != expected:
            again = "train the model again" if name == "model.ts" else "export it again: xas-agent models export"
            raise ModelError(
                f"{file}: SHA-256 {actual[:12]}… does not match its card ({expected[:12]}…); the file was changed or "
                f"damaged and is refused: restore it, or {again}"
            )
    return card


def installed() -> dict[str, Path]:
    """Return the folders of the shipped models by name."""
    root = Path(__file__).parent / "shipped"
    return {p.parent.name: p.parent for p in sorted(root.glob("*/card.yaml"))}


def find(name_or_folder: str) -> Path:
    """Return the folder of an installed model, or an existing folder.

    Raises
    ------
    ModelError
        There is neither such a model nor such a folder; the message lists the installed models.
    """
    models = installed()
    if name_or_folder in models:
        return models[name_or_folder]
    if Path(name_or_folder).is_dir():
        return Path(name_or_folder)
    raise ModelError(f"no model {name_or_folder!r}: neither a folder nor one of {', '.join(models)}")
