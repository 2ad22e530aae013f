"""Makes the frames of one run from its sweeps and whole-spectrum Events."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...wording import counted
from ..fields import FieldSettings, StreamFields, with_file
from ..types import Array, Frame, Reason, Refusal, RunInfo, Scan, SetAside
from .columns import average_readings, document_time, finite_scalars, read_event_columns, read_sweep_columns
from .notes import RepeatedNotes
from .sequence import MIN_HOLE_POINTS, Sweep
from .sweeps import (
    SweepSpectrum,
    UnusableError,
    form_spectrum,
    has_stray_energy,
    split_sweeps,
    strip_padding,
    turns_too_often,
)
from .together import form_together

FrameOutcome = Frame | SetAside
_GOLDEN_RATIO = 0.6180339887498949
Doc = Mapping[str, Any]


class Thinning:
    """Selects the frames to answer under overload: one in ``every``, on average.

    The choice is irregular, so that no run or sweep direction is left out altogether: multiples of the golden ratio,
    modulo 1, spread evenly over any period.
    """

    def __init__(self) -> None:
        self.every = 1
        self._frames = 0

    def leaves_out(self) -> bool:
        """Return whether the next frame is left out."""
        if self.every == 1:
            return False
        self._frames += 1
        return self._frames * _GOLDEN_RATIO % 1.0 >= 1.0 / self.every


class RunFrames:
    """Makes and numbers the frames of one run; a SetAside in place of a frame uses a number, too.

    Parameters
    ----------
    samples : parameters from robot runs, by ``sample_uid``; frames carry those of their sample
    thinning : selects the frames to leave out under overload, before any work for them
    """

    def __init__(
        self,
        info: RunInfo,
        settings: FieldSettings,
        samples: Mapping[str, Mapping[str, float]],
        thinning: Thinning,
    ) -> None:
        self.info = info
        self._settings, self._samples, self._thinning = settings, samples, thinning
        self.count = 0
        """Number of frames and of notes in place of a frame."""
        self._fragments = RepeatedNotes()
        """Groups of points too few for a sweep; unordered energies give hundreds."""
        self._sweeps: dict[str, int] = {}
        """Number of sweeps in the latest whole-spectrum Event, by stream."""

    def of_sweeps(
        self, stream: str, fields: StreamFields, sweeps: list[Sweep], cut: Refusal | None = None
    ) -> Iterator[FrameOutcome]:
        """Make frames of the sweeps of a step scan.

        ``cut`` states why the last sweep may be incomplete; its detail is appended to the number of points.
        """
        if turns_too_often([len(s.points) for s in sweeps], self._settings.min_points):
            detail = (
                f"the energy turns {counted(len(sweeps) - 1, 'time')} in {sum(len(s.points) for s in sweeps)} points"
            )
            uid, time = self._sweep_uid(stream, sweeps[0]), sweeps[-1].points[-1].time
            yield from self._fragment(self.set_aside(uid, time, Reason.ENERGY_NOT_MONOTONIC, detail))
            return
        for sweep in sweeps:
            outcome = self._of_sweep(stream, fields, sweep, cut if sweep is sweeps[-1] else None)
            if isinstance(outcome, SetAside) and len(sweep.points) < self._settings.min_points:
                yield from self._fragment(outcome)
            else:
                yield outcome

    def _fragment(self, note: SetAside) -> Iterator[SetAside]:
        self._fragments.add("", note)
        yield from self._fragments.take()

    def finish(self) -> Iterator[FrameOutcome]:
        """Return one note on all groups of points too few for a sweep, after the first group."""
        yield from self._fragments.further("")

    def _of_sweep(self, stream: str, fields: StreamFields, sweep: Sweep, cut: Refusal | None) -> FrameOutcome:
        points, uid = sweep.points, self._sweep_uid(stream, sweep)
        if len(points) >= self._settings.min_points and self._thinning.leaves_out():
            return self.set_aside(uid, points[-1].time, Reason.OVERLOAD, "")
        rows = [p.data for p in points]
        try:
            self._refuse_incomplete(sweep, cut)
            measured = form_spectrum(
                read_sweep_columns(fields, rows), fields.formula, self._settings.min_points, self._settings.bin_ev
            )
        except UnusableError as error:
            return self.set_aside(uid, points[-1].time, error.reason, error.detail)
        readings = average_readings(rows, fields.readings)
        received = max(p.received for p in points)
        return self._frame(
            stream, fields, measured, uid, points[-1].time, received, readings, self.info.scan, sum(sweep.gaps)
        )

    def _sweep_uid(self, stream: str, sweep: Sweep) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.info.uid}/{stream}/{sweep.number}"))

    def _refuse_incomplete(self, sweep: Sweep, cut: Refusal | None) -> None:
        """Refuse an incomplete sweep: a hole at the edge would give a wrong estimate with a narrow interval."""
        missing, present = sum(sweep.gaps), len(sweep.points)
        if sweep.overfull:
            raise UnusableError(Reason.TOO_MANY_POINTS, f"the energy did not turn round within {present} points")
        if self.info.joined_late and sweep.lost_first:
            raise UnusableError(Reason.TRUNCATED, f"its first {sweep.gaps[0]} points came before the agent listened")
        too_many = missing > self._settings.max_missing_fraction * (missing + present)
        if too_many or any(gap >= MIN_HOLE_POINTS for gap in sweep.gaps):
            detail = f"{missing} lost in or beside {present} points, at most {max(sweep.gaps)} together"
            raise UnusableError(Reason.POINTS_LOST, detail)
        if sweep.torn:
            raise UnusableError(Reason.POINTS_LOST, "where the energy turned round")
        if cut:
            raise UnusableError(cut.reason, f"after {present} points{cut.detail}")

    def form_together(
        self, fields: StreamFields, docs: Sequence[Doc], grid: Array | None
    ) -> list[SweepSpectrum | None]:
        """Form the spectra of whole-spectrum Events in advance of :meth:`of_event`; None for spectra to form alone.

        ``grid`` holds the energies, eV, if the stream has none.
        """
        settings = self._settings
        alone = fields.formula is None or fields.time is not None or settings.bin_ev is not None
        if alone or self._thinning.every > 1:
            return [None] * len(docs)
        return form_together(fields, [doc["data"] for doc in docs], grid, settings.min_points)

    def of_event(
        self,
        stream: str,
        fields: StreamFields,
        doc: Doc,
        grid: Array | None,
        received: float,
        formed: SweepSpectrum | None = None,
    ) -> Iterator[FrameOutcome]:
        """Make frames of a whole-spectrum Event, one for each sweep of its energies.

        Parameters
        ----------
        grid : energies, eV, if the stream has none
        formed : spectrum of the Event if :meth:`form_together` formed it
        """
        if formed is not None:
            yield self.of_formed(stream, fields, doc, received, formed)
            return
        data = doc["data"]
        uid, time, min_points = str(doc["uid"]), document_time(doc), self._settings.min_points
        scan = with_file(self.info.scan, data)
        if self._thinning.leaves_out():
            for _ in range(self._sweeps.get(stream, 1)):
                yield self.set_aside(uid, time, Reason.OVERLOAD, "", scan.file)
            return
        readings = finite_scalars(data, fields.readings)
        try:
            columns = strip_padding(read_event_columns(fields, data, grid))
            parts = split_sweeps(columns["energy"]) or [slice(0, 0)]
            short = turns_too_often([part.stop - part.start for part in parts], min_points)
            if short or has_stray_energy(columns["energy"], parts):
                detail = f"the energy turns {counted(len(parts) - 1, 'time')} in {columns['energy'].size} points"
                raise UnusableError(Reason.ENERGY_NOT_MONOTONIC, detail)
        except UnusableError as error:
            yield self.set_aside(uid, time, error.reason, error.detail, scan.file)
            return
        self._sweeps[stream] = len(parts)
        for number, part in enumerate(parts, 1):
            frame_uid = uid if len(parts) == 1 else str(uuid.uuid5(uuid.NAMESPACE_OID, f"{uid}/{number}"))
            sweep = {role: c[part] for role, c in columns.items()}
            end = float(sweep["time"][-1]) if "time" in sweep and np.isfinite(sweep["time"][-1:]).all() else time
            try:
                measured = form_spectrum(sweep, fields.formula, min_points, self._settings.bin_ev)
            except UnusableError as error:
                yield self.set_aside(frame_uid, end, error.reason, error.detail, scan.file)
            else:
                yield self._frame(stream, fields, measured, frame_uid, end, received, readings, scan)

    def of_formed(self, stream: str, fields: StreamFields, doc: Doc, received: float, formed: SweepSpectrum) -> Frame:
        """Make the frame of a whole-spectrum Event that :meth:`form_together` has formed."""
        data = doc["data"]
        self._sweeps[stream] = 1
        readings, scan = finite_scalars(data, fields.readings), with_file(self.info.scan, data)
        return self._frame(stream, fields, formed, str(doc["uid"]), document_time(doc), received, readings, scan)

    def set_aside(self, uid: str, time: float, reason: Reason, detail: str, file: str = "") -> SetAside:
        """Return a note in place of the next frame."""
        self.count += 1
        return SetAside(self.info.uid, uid, time, reason, detail, self.count, file)

    def _frame(
        self,
        stream: str,
        fields: StreamFields,
        spectrum: SweepSpectrum,
        uid: str,
        time: float,
        received: float,
        readings: Mapping[str, float],
        scan: Scan,
        points_missing: int = 0,
    ) -> Frame:
        self.count += 1
        return Frame(
            uid=uid,
            run_uid=self.info.uid,
            seq_num=self.count,
            time=time,
            energy=spectrum.energy,
            mu=spectrum.mu,
            reference=spectrum.reference,
            normalised=fields.formula == "normalised",
            formula=fields.formula or "transmission",
            element=self.info.element,
            edge=self.info.edge,
            stream=stream,
            direction=spectrum.direction,
            points_missing=points_missing,
            scan=scan,
            readings={**self._samples.get(self.info.sample_uid or "", {}), **readings},
            reading_units=fields.reading_units,
            received=received,
        )
