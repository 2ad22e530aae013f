"""Adds quantities of its series to each estimate: anchored values, changes, rates and positions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from ..types import (
    Z90,
    ConfigError,
    DescriptorEstimate,
    Edge,
    Estimate,
    Estimates,
    Flag,
    Frame,
    Memory,
    RunInfo,
    SeriesSlope,
    get_logger,
    robust_line,
)
from .line import Known, Line, fit_line
from .references import Spectrum, compare
from .settings import Anchor, RelativeSettings, derived_units, read_anchors

_log = get_logger()

KEY = "xas_anchors"
"""RunStart key of the anchors of its series."""
_MAX_SERIES = 256
"""Number of series to remember; the least recently used one is dropped first."""
_MAX_OOD = 1.0
"""Largest out-of-distribution score of a frame that others are compared with."""
_HOUR_S = 3600.0
_SLOPES = {"OS": SeriesSlope(0.9, 0.2, 0.06)}
"""For models whose card states none: between the slopes of Co and Ni, 0.81 and 0.94, with a wider error."""
_SLOPE = SeriesSlope(0.9, 0.2)
"""For descriptors whose slope was not measured."""

_Means = dict[str, tuple[float, float]]
"""Mean and standard deviation between repeats, by descriptor."""


class Scale(Protocol):
    """The properties of a model that its series need; an Estimator, or a stand-in that is not loaded."""

    @property
    def name(self) -> str:
        """Name of the model."""
        ...

    @property
    def edge(self) -> Edge:
        """Absorption edge of the model, with the slopes of its estimates along a series."""
        ...


@dataclass
class _Series:
    """The state of one series."""

    anchors: list[Anchor]
    shown: list[list[_Means]]
    """For each anchor: its frames so far."""
    run: str = ""
    before: int = 0
    """Number of frames in the runs before ``run``."""
    number: int = 0
    """Number of the newest frame."""
    first: _Means = field(default_factory=dict)
    """The first frame: means of the descriptors with a requested change."""
    newest: _Means = field(default_factory=dict)
    """The newest frame; empty if its spectrum is unfamiliar to the model."""
    points: list[tuple[float, _Means]] = field(default_factory=list)
    """Times, s, and means of the latest frames, for the descriptors with a requested rate."""
    references: list[Spectrum | None] = field(default_factory=list)
    disagreeing: list[str] = field(default_factory=list)
    """Descriptors whose contradictory anchors have been logged."""
    lines: dict[str, Line] | None = None
    """Lines of the anchored descriptors; None if they must be fitted."""

    @classmethod
    def begun(cls, anchors: Sequence[Anchor]) -> "_Series":
        return cls(list(anchors), [[] for _ in anchors])

    def count(self, frame: Frame) -> int:
        """Return the number of a frame in the series: its ``seq_num`` plus the frames of earlier runs."""
        if frame.run_uid != self.run:
            self.run, self.before = frame.run_uid, self.number
        number = self.before + frame.seq_num
        self.number = max(self.number, number)
        return number

    def fitted(self, model: Scale) -> dict[str, Line]:
        """Return the lines through the anchors."""
        known: dict[str, list[Known]] = {}
        for anchor, frames in zip(self.anchors, self.shown, strict=True):
            for name, value in anchor.values.items() if frames else ():
                means, sds = np.array([frame[name] for frame in frames]).T
                sd_frame = math.sqrt(float(sds @ sds)) / len(sds)
                known.setdefault(name, []).append(Known(value, anchor.sd, float(means.mean()), sd_frame))
        return {name: fit_line(points, _slope_of(model, name)) for name, points in known.items()}

    def saved(self) -> list[Any]:
        """Return the state as numbers, texts, arrays, lists and mappings."""
        anchors = [_dumped(anchor) for anchor in self.anchors]
        numbers = [self.run, self.before, self.number]
        frames = [self.first, self.newest, self.points, self.references]
        return [anchors, self.shown, numbers, *frames, self.disagreeing]

    @classmethod
    def restored(cls, saved: list[Any]) -> "_Series":
        """Return the series with a saved state."""
        anchors, shown, (run, before, number), first, newest, points, references, disagreeing = saved
        return cls(
            anchors=[Anchor.model_validate(anchor) for anchor in anchors],
            shown=[[_means(frame) for frame in frames] for frames in shown],
            run=run,
            before=before,
            number=number,
            first=_means(first),
            newest=_means(newest),
            points=[(time, _means(means)) for time, means in points],
            references=[None if r is None else np.asarray(r) for r in references],
            disagreeing=list(disagreeing),
        )


class RelativeQuantities:
    """Adds relative quantities to the estimates of a series' frames. Not thread-safe.

    A series belongs to one model and covers all runs of its sample. Frames with an out-of-distribution score above 1
    get all quantities, but never serve as an anchor, a first frame, a reference, or a point of a rate.

    Parameters
    ----------
    anchors : known states, for every series
    settings : further quantities
    units : units of the descriptors of all models, by name
    spectra : aligned spectra, (G,), of references given as files, by file and name of the model
    """

    def __init__(
        self,
        anchors: Sequence[Anchor] = (),
        settings: RelativeSettings | None = None,
        units: Mapping[str, str] | None = None,
        spectra: Mapping[str, Mapping[str, Spectrum]] | None = None,
    ) -> None:
        self._anchors, self._settings = tuple(anchors), settings or RelativeSettings()
        self._descriptors, self._spectra = dict(units or {}), dict(spectra or {})
        self.units = derived_units(self._settings, self._descriptors)
        """Units of all relative quantities, by name."""
        self._series: LRUCache[tuple[str, str], _Series] = LRUCache(_MAX_SERIES)
        """Series by key and name of the model."""
        self._of_series: LRUCache[str, list[Anchor]] = LRUCache(_MAX_SERIES)
        """Anchors that replace those of the config, by series."""
        self._read: set[str] = set()
        """Runs in progress whose RunStart had its own anchors."""
        self._latest = ""
        """Series of the newest frame; empty before the first frame."""
        self._waiting: list[Anchor] = []
        """Anchors that wait for a frame."""

    def __call__(
        self, frame: Frame, model: Scale, estimate: Estimate, spectrum: NDArray[np.floating], noise: float
    ) -> Estimate:
        """Return the estimate with the quantities of its series.

        Parameters
        ----------
        spectrum : (G,) aligned spectrum
        noise : standard deviation per measured point, edge steps
        """
        self._latest = frame.series
        while self._waiting:
            self.anchor(None, self._waiting.pop(0))
        series = self._of(frame.series, model)
        before, number = series.number, series.count(frame)
        series.newest = {}
        if estimate.ood_score <= _MAX_OOD:
            series.newest = {name: (d.mean, d.sd_frame) for name, d in estimate.descriptors.items()}
            self._anchor(series, frame, number, model)
            self._refer(series, frame, number, spectrum)
        self._report_missed(series, before, frame)
        lines = self._lines(series, frame, model)
        derived = {f"{name}_anchored": line.value(estimate.descriptors[name]) for name, line in lines.items()}
        for name, begun in series.first.items():
            derived[f"{name}_change"] = _line_of(lines, name, model).change(begun, estimate.descriptors[name])
        for name in self._settings.rate:
            derived |= self._rate(series, name, _line_of(lines, name, model))
        first, second = [*series.references, None, None][:2]
        if first is not None:
            derived |= compare(spectrum, first, second, noise)
        flags = estimate.flags
        if any(line.contradiction > 1 for line in lines.values()):
            flags = (*flags, Flag.ANCHORS_DISAGREE)
        if not derived and flags is estimate.flags:
            return estimate
        return replace(estimate, descriptors={**estimate.descriptors, **derived}, flags=flags)

    def adds_nothing(self, frames: Sequence[Frame], model: Scale, estimates: Estimates) -> bool:
        """Record several frames of a series in one call, if their estimates get no relative quantities."""
        settings = self._settings
        if self._waiting or settings.change or settings.rate or settings.references:
            return False
        series, newest = self._of(frames[-1].series, model), estimates.rows(slice(-1, None))[0]
        if series.anchors:
            return False
        self._latest = frames[-1].series
        for frame in frames:
            series.count(frame)
        known = newest.ood_score <= _MAX_OOD
        series.newest = {n: (d.mean, d.sd_frame) for n, d in newest.descriptors.items()} if known else {}
        return True

    def begin(self, run: RunInfo) -> Memory:
        """Read the anchors in the RunStart of a run, if any; return the states that changed.

        They replace the config's anchors for the run's series. Invalid anchors are logged.
        """
        if KEY not in run.start or run.uid in self._read:
            return {}
        self._read.add(run.uid)
        name = run.scan.series or run.uid
        try:
            anchors = read_anchors(run.start[KEY], self._descriptors, "RunStart")
        except ConfigError as error:
            _log.warning("anchors of the run not used", detail=str(error), run=run.uid, **run.scan.named())
        else:
            self._of_series[name] = list(anchors)
            for series in self._with_key(name).values():
                series.anchors, series.shown, series.lines = list(anchors), [[] for _ in anchors], None
        return {(run.uid, "anchors read"): True} | self._memory_of(name)

    def anchor(self, series: str | None, anchor: Anchor) -> Memory:
        """Take the newest frame of a series as an anchor, or the next frame if the newest is unfamiliar to the model.

        Parameters
        ----------
        series : key of the series; None: the series of the newest frame or, before the first, of the next frame
        anchor : anchor of :func:`~.settings.anchor_of`, for the next frame

        Returns
        -------
        The states that changed, for the journal.
        """
        name = self._latest if series is None else series
        if not name:
            self._waiting.append(anchor)
            return {}
        for state in self._with_key(name).values():
            state.anchors.append(anchor)
            state.shown.append([state.newest] if anchor.values.keys() <= state.newest.keys() else [])
            state.lines = None
        self._of_series.setdefault(name, list(self._anchors)).append(anchor)
        return self._memory_of(name)

    def forget(self, run_uid: str) -> None:
        """Forget a run that stopped; the series of a sample is kept."""
        self._read.discard(run_uid)
        self._of_series.pop(run_uid, None)
        self._latest = "" if self._latest == run_uid else self._latest
        for key in [key for key in self._series if key[0] == run_uid]:
            del self._series[key]

    def memory(self, series: str, model: Scale) -> Memory:
        """Return the state of a series."""
        state = self._series.get((series, model.name))
        return {} if state is None else {(series, "relative", model.name): state.saved()}

    def restore(self, memory: Memory) -> None:
        """Continue with the states that :meth:`memory` returned."""
        for (name, owner, *model), state in memory.items():
            if owner == "relative":
                self._series[name or "", model[0] or ""] = _Series.restored(state)
                self._latest = name or ""
            elif owner == "anchors":
                self._of_series[name or ""] = [Anchor.model_validate(anchor) for anchor in state]
            elif owner == "anchors read":
                self._read.add(name or "")

    def _with_key(self, name: str) -> dict[str, _Series]:
        """Return the series with a key, for all models."""
        return {key[1]: self._series[key] for key in list(self._series) if key[0] == name}

    def _memory_of(self, name: str) -> Memory:
        """Return the states of a series, with its own anchors."""
        own = self._of_series.get(name)
        memory: Memory = {} if own is None else {(name, "anchors"): [_dumped(anchor) for anchor in own]}
        states = self._with_key(name).items()
        return memory | {(name, "relative", model): state.saved() for model, state in states}

    def _of(self, name: str, model: Scale) -> _Series:
        key = name, model.name
        if key not in self._series:
            self._series[key] = _Series.begun(self._of_series.get(name, self._anchors))
            of_files = (self._spectra.get(str(r), {}) for r in self._settings.references)
            self._series[key].references = [spectra.get(model.name) for spectra in of_files]
        return self._series[key]

    def _anchor(self, series: _Series, frame: Frame, number: int, model: Scale) -> None:
        """Add the newest frame to the anchors whose condition it meets."""
        for anchor, shown in zip(series.anchors, series.shown, strict=True):
            if len(shown) == anchor.count or not anchor.holds(frame, number):
                continue
            values = anchor.values
            if values.keys() <= series.newest.keys():
                shown.append({name: series.newest[name] for name in values})
                series.lines = None
                read = {name: round(series.newest[name][0], 3) for name in values}
                _log.info("anchor", known=values, read=read, frame=number, model=model.name, **frame.scan.named())

    def _refer(self, series: _Series, frame: Frame, number: int, spectrum: Spectrum) -> None:
        """Keep the data of the newest frame that later ones are compared with."""
        settings, newest = self._settings, series.newest
        series.first = series.first or {name: newest[name] for name in settings.change if name in newest}
        for k, reference in enumerate(settings.references):
            if series.references[k] is None and reference in ("first", number):
                series.references[k] = np.array(spectrum)
        if settings.rate and math.isfinite(frame.time):
            means = {name: newest[name] for name in settings.rate if name in newest}
            series.points = [*series.points, (frame.time, means)][-settings.rate_frames :]

    def _report_missed(self, series: _Series, before: int, frame: Frame) -> None:
        """Log that the frames of an anchor have passed, and that none could be used."""
        for anchor, shown in zip(series.anchors, series.shown, strict=True):
            last = anchor.last
            if not shown and last is not None and before <= last < series.number and anchor.concerns(frame):
                detail = f"found no answered spectrum known to the model, expected frame {anchor.frame}"
                _log.warning("anchor missed", detail=detail, run=frame.run_uid, **frame.scan.named())

    def _lines(self, series: _Series, frame: Frame, model: Scale) -> dict[str, Line]:
        """Return the lines through the anchors; log once if anchors disagree."""
        if series.lines is None:
            series.lines = series.fitted(model)
            for name, line in series.lines.items():
                if line.contradiction > 1 and name not in series.disagreeing:
                    series.disagreeing.append(name)
                    detail = f"residuals {line.contradiction:.1f} times their errors: intervals wider by this factor"
                    about = {"run": frame.run_uid, **frame.scan.named()}
                    _log.warning("anchors disagree", descriptor=name, detail=detail, **about)
        return series.lines

    def _rate(self, series: _Series, name: str, scale: Line) -> dict[str, DescriptorEstimate]:
        """Return the slope per hour of a robust line through the latest frames, on the scale of true values."""
        # Sorted, because a late frame is older than the newest.
        found = sorted((time, means[name][0]) for time, means in series.points if name in means)
        if len(found) < self._settings.rate_frames or found[0][0] == found[-1][0]:
            return {}
        line = robust_line(*np.array(found).T)
        rate, repeats = (scale.scale * part * _HOUR_S for part in (line.slope, line.slope_error))
        half = Z90 * math.hypot(repeats, math.sqrt(scale.scale_var) * line.slope * _HOUR_S)
        return {f"{name}_rate": DescriptorEstimate(rate, rate - half, rate + half, sd_frame=abs(repeats))}


def _slope_of(model: Scale, name: str) -> SeriesSlope:
    return model.edge.series_slopes.get(name) or _SLOPES.get(name, _SLOPE)


def _line_of(lines: Mapping[str, Line], name: str, model: Scale) -> Line:
    """Return the line of a descriptor; without anchors, the line of its prior, which has no height."""
    return lines.get(name) or fit_line((), _slope_of(model, name))


def _dumped(anchor: Anchor) -> dict[str, Any]:
    return anchor.model_dump(mode="json")


def _means(saved: Mapping[str, Sequence[float]]) -> _Means:
    return {name: (mean, sd) for name, (mean, sd) in saved.items()}
