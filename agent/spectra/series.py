"""Aligns frames with the help of earlier frames of their series: their foils, backgrounds and μ."""

import math
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise

import numpy as np
from cachetools import LRUCache

from ..types import NO_TABLES, Array, Estimator, Flag, Frame, Measured, Memory, Tabulated, get_logger
from .align import Aligned, align, find_configured_glitches
from .background import SeriesBackground
from .batch import Batch
from .foil import EnergyCalibration, FoilTrack
from .foil_edge import read_foils
from .glitches import Glitches
from .settings import AlignmentSettings

_log = get_logger()

_MAX_SERIES = 1000  # number of series to remember


@dataclass
class _Series:
    background: SeriesBackground = field(default_factory=SeriesBackground)
    """Background for scans that are too short."""
    earlier: deque[Array] = field(default_factory=deque)
    """μ of the last frames as measured, (M,) each on ``energies``, for the glitch search."""
    energies: bytes = b""


class SeriesAlignment:
    """Aligns frames in the order of time, batch by batch; the result does not depend on the batches.

    A series holds the frames of one sample, or of one run if the sample is not named, that are measured in one way
    and served by one model.

    Parameters
    ----------
    settings : settings of the alignment
    max_series : number of series to remember; the one without a frame for longest is dropped first
    tabulated : tables that ``settings`` require, by model name
    """

    order_matters = True

    def __init__(
        self,
        settings: AlignmentSettings,
        max_series: int = _MAX_SERIES,
        *,
        tabulated: Mapping[str, Tabulated] | None = None,
    ) -> None:
        self._settings = settings
        self._without_glitches = settings.model_copy(update={"glitches": None, "gross_glitches": False})
        """Settings for spectra whose glitches are already repaired."""
        self._tabulated = tabulated or {}
        self._series: LRUCache[Hashable, _Series] = LRUCache(max_series)
        self._foils: dict[str, FoilTrack] = {}
        """Foils by model name only, since all samples share one monochromator."""
        self._calibrated: LRUCache[tuple[str, str], bool] = LRUCache(max_series)
        """Series of which a foil calibrated a frame, by model name and sample: whether it still does. Runs that name
        no sample count as one series."""

    def kind(self, frame: Frame) -> tuple[Hashable, ...]:
        """Return the kind of a frame; only frames of one kind are aligned in one call."""
        series = (frame.series, frame.energy.tobytes()) if self._settings.glitches is not None else ()
        return len(frame.energy), frame.normalised, frame.reference is None, frame.formula, series

    def __call__(self, frames: Sequence[Frame], model: Estimator) -> Aligned:
        """Align frames of one kind, in the order of time."""
        batch = self._batch(frames)
        measured = Measured(batch.energy, batch.mu, batch.reference)
        glitches = self._glitches(frames, batch, model)
        if glitches is not None:
            batch = replace(batch, mu=glitches.mu)
        settings = self._without_glitches
        calibrations = self._calibrate(frames, read_foils(batch, model.edge, settings), model)
        tabulated = self._tabulated.get(model.name, NO_TABLES)

        aligned = align(batch, model.grid, model.edge, settings, calibrations=calibrations, tabulated=tabulated)
        rows, backgrounds = self._short_frames(frames, aligned, model)
        if rows:
            again = align(
                batch.rows(rows),
                model.grid,
                model.edge,
                settings,
                calibrations=[calibrations[i] for i in rows],
                series_background=np.stack(backgrounds),
                tabulated=tabulated,
            )
            aligned = aligned.with_rows(rows, again)
        if glitches is None:
            return replace(aligned, measured=measured)
        flags = tuple(a + b for a, b in zip(aligned.flags, glitches.flags, strict=True))
        quantities = {**aligned.quantities, "glitches": glitches.count.astype(float)}
        return replace(aligned, flags=flags, repaired=glitches.found, quantities=quantities, measured=measured)

    def memory(self, frame: Frame, model: Estimator) -> Memory:
        """Return the states of a frame's series and of its model's foil."""
        series, track = self._series_of(frame, model), self._foils.get(model.name)
        kept = [series.background.state(), list(series.earlier), series.energies]
        key = (frame.series, "alignment", model.name, frame.formula, "normalised" if frame.normalised else "")
        memory: Memory = {key: kept} if track is None else {key: kept, ("", "foil", model.name): track.state()}
        sample, calibrated = frame.scan.series, self._calibrated.get((model.name, frame.scan.series))
        return memory if calibrated is None else memory | {(sample, "calibrated", model.name): calibrated}

    def restore(self, memory: Memory) -> None:
        """Continue with the states that :meth:`memory` returned."""
        for (name, owner, *more), state in memory.items():
            if owner == "foil":
                self._foils[more[0] or ""] = track = FoilTrack(self._settings.foil)
                track.restore(state)
            elif owner == "calibrated":
                self._calibrated[more[0] or "", name or ""] = state
            elif owner == "alignment":
                model, formula, normalised = more
                series = self._series[(model, name, formula, bool(normalised))] = _Series()
                for terms in state[0]:
                    series.background.add(np.array(terms))
                if self._settings.glitches is not None:
                    series.earlier = deque(state[1], self._settings.glitches.earlier_frames)
                    series.energies = state[2]

    def _calibrate(
        self, frames: Sequence[Frame], own: Sequence[EnergyCalibration], model: Estimator
    ) -> list[EnergyCalibration]:
        """Return the calibrations of frames whose own foils give ``own``; a frame may have no time."""
        found = [*own]
        timed = [i for i, frame in enumerate(frames) if math.isfinite(frame.time)]
        if not timed:
            return found
        track = self._foils.get(model.name)
        if track is None:
            track = self._foils[model.name] = FoilTrack(self._settings.foil)
        shifts, sds, flags, _ = zip(*(own[i] for i in timed), strict=True)
        followed = track.follow_all([frames[i].time for i in timed], shifts, sds)
        for i, calibration, flag in zip(timed, followed, flags, strict=True):
            found[i] = calibration if flag is None else calibration._replace(flag=flag)
        for (sample, unknown), rows in groupby(
            timed, lambda i: (frames[i].scan.series, math.isnan(found[i].shift_ev))
        ):
            key = model.name, sample
            if not unknown:
                self._calibrated[key] = True
            elif key in self._calibrated:
                for i in rows:
                    found[i] = found[i]._replace(flag=found[i].flag or Flag.FOIL_FORGOTTEN)
                if self._calibrated[key]:
                    self._calibrated[key] = False
                    message = "no foil for longer than alignment.foil.forget_s: the configured energy shift is used"
                    detail = "estimates may step: measure the foil"
                    about = {"sample": sample} if sample else {}
                    _log.warning(message, forget_s=self._settings.foil.forget_s, detail=detail, **about)
        return found

    def _batch(self, frames: Sequence[Frame]) -> Batch:
        energies = [f.energy for f in frames]
        shared = all(a is b or np.array_equal(a, b) for a, b in pairwise(energies))
        references = [f.reference for f in frames if f.reference is not None]
        return Batch(
            energies[0] if shared else np.stack(energies),
            np.stack([f.mu for f in frames]),
            reference=np.stack(references) if references else None,
            normalised=frames[0].normalised,
            fluorescence=self._is_fluorescence(frames[0]),
            transmission=frames[0].formula == "transmission",
        )

    def _is_fluorescence(self, frame: Frame) -> bool:
        settings = self._settings.self_absorption
        computed = settings is not None and settings.mu_is_fluorescence and frame.formula in ("mu", "normalised")
        return frame.formula == "fluorescence" or computed

    def _series_of(self, frame: Frame, model: Estimator) -> _Series:
        key = model.name, frame.series, frame.formula, frame.normalised
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        return series

    def _glitches(self, frames: Sequence[Frame], batch: Batch, model: Estimator) -> Glitches | None:
        settings = self._settings.glitches
        if settings is None:
            return find_configured_glitches(batch, model.edge, self._settings)
        series, energies = self._series_of(frames[0], model), frames[0].energy.tobytes()
        if series.energies != energies:
            series.energies, series.earlier = energies, deque(maxlen=settings.earlier_frames)
        earlier = np.stack(series.earlier) if series.earlier else batch.mu[:0]
        series.earlier.extend(batch.mu)
        return find_configured_glitches(batch, model.edge, self._settings, earlier)

    def _short_frames(
        self, frames: Sequence[Frame], aligned: Aligned, model: Estimator
    ) -> tuple[list[int], list[Array]]:
        """Return the rows of frames that are too short, and for each the background of the frames before it."""
        rows: list[int] = []
        backgrounds: list[Array] = []
        for _, group in groupby(range(len(frames)), lambda i: frames[i].series):
            first, *others = group
            same = slice(first, first + 1 + len(others))
            series, terms = self._series_of(frames[first], model).background, aligned.background[same]
            if not aligned.short[same].any():
                series.add_all(terms)
                continue
            for i, own in enumerate(terms, first):
                if aligned.short[i] and len(series):
                    rows.append(i)
                    backgrounds.append(series.background())
                series.add(own)
        return rows, backgrounds
