"""Frames aligned with what the earlier frames of their series say of them."""

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from cachetools import LRUCache

from ..types import NO_TABLES, Array, Estimator, Frame, Tabulated
from .align import Aligned, align, find_all_glitches, foil_shifts
from .background import SeriesBackground
from .batch import Batch
from .foil import READ_EV, Course, FoilTrack
from .glitches import Glitches
from .settings import AlignmentSettings

REMEMBERED_SERIES = 1000


@dataclass
class _Series:
    prior: SeriesBackground = field(default_factory=SeriesBackground)
    """Background of scans that are too short to tell their own."""
    earlier: deque[Array] = field(default_factory=deque)
    """(M,) each, as measured, for finding glitches: the last frames, all on ``energies``."""
    energies: bytes = b""


class SeriesAlignment:
    """Aligns frames, in the order of time, batch by batch; how they are batched changes nothing.

    A series is the frames of one sample, or of one run where samples are not named, for one model. The one that was
    longest without a frame is forgotten beyond ``most``.
    """

    in_time = True

    def __init__(
        self,
        settings: AlignmentSettings,
        most: int = REMEMBERED_SERIES,
        *,
        tabulated: Mapping[str, Tabulated] | None = None,
    ) -> None:
        self._settings = settings

        self._tabulated = tabulated or {}
        """By model, what the settings ask for of tables."""
        self._series: LRUCache[Hashable, _Series] = LRUCache(most)
        self._foils: dict[str, FoilTrack] = {}
        """By model: one monochromator, whichever the sample."""

    def kind(self, frame: Frame) -> tuple[Hashable, ...]:
        """What frames must have in common to be aligned in one call."""
        in_time = (series_of(frame), frame.energy.tobytes()) if self._settings.glitches is not None else ()
        return len(frame.energy), frame.normalised, frame.reference is None, self._fluorescent(frame), in_time

    def __call__(self, frames: Sequence[Frame], model: Estimator) -> Aligned:
        """Align frames of one kind."""
        batch = self._batch(frames)
        glitches = self._glitches(frames, batch, model)
        if glitches is not None:
            batch = replace(batch, mu=glitches.mu)
        settings = self._settings.model_copy(update={"glitches": None, "gross_glitches": False})
        track = self._foils.setdefault(model.name, FoilTrack(settings.foil))
        courses = [
            track.follow(f.time, shift) if np.isfinite(f.time) else Course(shift, READ_EV)
            for f, shift in zip(frames, foil_shifts(batch, model.edge, settings).tolist(), strict=True)
        ]
        tabulated = self._tabulated.get(model.name, NO_TABLES)

        def aligned(own: Batch, courses: Sequence[Course], held: Array | None) -> Aligned:
            return align(own, model.grid, model.edge, settings, courses=courses, held=held, tabulated=tabulated)

        found = aligned(batch, courses, None)
        rows, held = self._short(frames, found, model)
        if rows:
            again = aligned(batch.rows(rows), [courses[i] for i in rows], np.stack(held))
            found = found.with_rows(rows, again)
        if glitches is None:
            return found
        flags = tuple(a + b for a, b in zip(found.flags, glitches.flags, strict=True))
        quantities = {**found.quantities, "glitches": glitches.count.astype(float)}
        return replace(found, flags=flags, repaired=glitches.found, quantities=quantities)

    def _batch(self, frames: Sequence[Frame]) -> Batch:
        energies = [f.energy for f in frames]
        shared = all(e is energies[0] or np.array_equal(e, energies[0]) for e in energies[1:])
        references = [f.reference for f in frames if f.reference is not None]
        return Batch(
            energies[0] if shared else np.stack(energies),
            np.stack([f.mu for f in frames]),
            reference=np.stack(references) if references else None,
            normalised=frames[0].normalised,
            fluorescence=self._fluorescent(frames[0]),
        )

    def _fluorescent(self, frame: Frame) -> bool:
        how = self._settings.self_absorption
        computed = how is not None and how.mu_is_fluorescence and frame.formula in ("mu", "normalised")
        return frame.formula == "fluorescence" or computed

    def _of(self, frame: Frame, model: Estimator) -> _Series:
        return self._series.setdefault((model.name, series_of(frame)), _Series())

    def _glitches(self, frames: Sequence[Frame], batch: Batch, model: Estimator) -> Glitches | None:
        how = self._settings.glitches
        if how is None:
            return find_all_glitches(batch, model.edge, self._settings)
        series, energies = self._of(frames[0], model), frames[0].energy.tobytes()
        if series.energies != energies:
            series.energies, series.earlier = energies, deque(maxlen=how.earlier_frames)
        earlier = np.stack(series.earlier) if series.earlier else batch.mu[:0]
        series.earlier.extend(batch.mu)
        return find_all_glitches(batch, model.edge, self._settings, earlier)

    def _short(self, frames: Sequence[Frame], found: Aligned, model: Estimator) -> tuple[list[int], list[Array]]:
        """The frames that are too short, and the background that those before each of them have."""
        rows: list[int] = []
        held: list[Array] = []
        for i, frame in enumerate(frames):
            prior = self._of(frame, model).prior
            if found.short[i] and len(prior):
                rows.append(i)
                held.append(prior.background())
            prior.add(found.background[i])
        return rows, held


def series_of(frame: Frame) -> str:
    """The frames of one sample, or of one run where samples are not named."""
    return frame.sample_uid or frame.run_uid
