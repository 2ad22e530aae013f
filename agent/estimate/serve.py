"""Frames → answers: one path serves streams, files and computed spectra.

A model is chosen for each frame; frames of one kind are aligned together and estimated with the uncertainty of their
energies. Every frame has exactly one answer; the answer to a frame that cannot be served states the reason.
"""

import math
import zlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..fields import are_kev
from ..spectra import Aligned, add_noise
from ..types import (
    Array,
    Estimate,
    Estimates,
    Estimator,
    Flag,
    Frame,
    InputError,
    Lines,
    Measured,
    Reason,
    Refusal,
    get_logger,
    nodes,
)
from .energy_uncertainty import EnergyUncertainty, FrameErrors
from .model_choice import check_model, choose_model

_log = get_logger()


_Chosen = tuple[tuple[Hashable, ...], Estimator, Frame]
"""Kind of a frame (only frames of one kind are aligned together), its model, and the frame."""


class Aligner(Protocol):
    """Aligns measured or computed frames on a model's grid."""

    order_matters: bool
    """Whether a frame's alignment depends on the frames before it."""

    def kind(self, frame: Frame) -> tuple[Hashable, ...]:
        """Return the kind of a frame; only frames of one kind are aligned in one call."""
        ...

    def __call__(self, frames: Sequence[Frame], model: Estimator) -> Aligned:
        """Align frames of one kind."""
        ...


@dataclass(eq=False)
class Answer:
    """The answer to one frame: a refusal, or an aligned spectrum and its estimate."""

    frame: Frame
    model: Estimator | None = None
    """Model of the frame; None if no model or several fit."""
    refusal: Refusal | None = None
    aligned: Aligned | None = None
    """Alignment of the batch, with this frame in row ``row``; None if the frame was refused before."""
    row: int = 0
    estimates: Sequence[Estimate] | None = None
    """Estimates of the batch, with this frame's at ``place``; None if only an alignment was requested."""
    place: int = 0

    @cached_property
    def estimate(self) -> Estimate | None:
        """Estimate with the flags of the model and then of the alignment; None if only an alignment was requested."""
        return None if self.estimates is None else self.estimates[self.place]

    @property
    def mu(self) -> NDArray[np.float32]:
        """(G,) absorption on the model's grid and footing; meaningless for a refused frame."""
        assert self.aligned is not None
        return self.aligned.mu[self.row]

    @cached_property
    def quantities(self) -> Mapping[str, float]:
        """Quantities of :class:`~xas_agent.agent.spectra.align.Aligned`; empty if the frame was refused before."""
        return {} if self.aligned is None else {k: v[self.row] for k, v in self.aligned.numbers.items()}

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Flags of the model and of the alignment."""
        if self.estimates is None:
            return () if self.aligned is None else self.aligned.flags[self.row]
        found = self.estimates
        return found.flags[self.place] if isinstance(found, Estimates) else found[self.place].flags


def rows_of(
    answers: Sequence[Answer], *, with_lines: bool
) -> tuple[dict[str, Array], NDArray[np.float32], Lines | None]:
    """Return the quantities, spectra (N, G) and lines of neighbouring answers in one batch.

    Lines are None if they are not requested, or if the spectra were computed.
    """
    first = answers[0]
    aligned, model, numbers = first.aligned, first.model, [answer.row for answer in answers]
    assert aligned is not None
    assert model is not None
    together = numbers[-1] - numbers[0] == len(numbers) - 1  # the numbers rise
    rows = slice(numbers[0], numbers[-1] + 1) if together else np.array(numbers)
    quantities = {name: values[rows] for name, values in aligned.quantities.items()}
    if not with_lines or aligned.lines is None:
        return quantities, aligned.mu[rows], None
    at, foil_shift_ev = nodes(len(first.frame.energy)), quantities["foil_shift_ev"]
    pre_edge, rise = (curve[rows][:, at] for curve in (aligned.lines.pre_edge, aligned.lines.rise))
    lines = Lines(
        pre_edge,
        pre_edge + rise,
        quantities["e0_ev"] - (quantities["energy_shift_ev"] - model.edge.feff_minus_experiment_ev),
        np.where(foil_shift_ev != 0, model.edge.edge_ev - foil_shift_ev, math.nan),
        None if aligned.measured is None else _rows_of(aligned.measured, rows),
    )
    return quantities, aligned.mu[rows], lines


def _rows_of(measured: Measured, rows: slice | NDArray[np.intp]) -> Measured:
    energy, mu, reference = measured
    energy = energy if len(energy) == 1 else energy[rows]
    return Measured(energy, mu[rows], None if reference is None else reference[rows])


class FrameServer:
    """Serves frames in the order of time; batching changes the results only by rounding.

    Parameters
    ----------
    models : available models, one of which is chosen for each frame
    align : aligns the frames
    energy_uncertainty : adds the share of the energies to the intervals; None for exact, computed energies
    named : whether the user named the only model, which then serves every frame
    max_batch : largest number of frames in one call of the alignment and the model
    """

    def __init__(
        self,
        models: Sequence[Estimator],
        align: Aligner,
        energy_uncertainty: EnergyUncertainty | None,
        *,
        named: bool = False,
        max_batch: int = 256,
    ) -> None:
        self._models = models
        self._align = align
        self.hurried = False
        """Whether to skip the passes for the energy uncertainty, under overload."""
        self._energy_uncertainty = energy_uncertainty
        self._max_batch = max_batch
        self._named = models[0] if named and len(models) == 1 else None

    def __call__(self, frames: Sequence[Frame], *, by_time: bool = False) -> Iterator[Answer]:
        """Align and estimate frames.

        The answers come batch by batch; those of frames without a model come first. If a frame makes the alignment or
        the model fail, its answer is an ``INTERNAL_ERROR``, and the other frames are served.

        Parameters
        ----------
        frames : frames in the order of time
        by_time : whether to sort the frames by time, if each has one
        """
        for answers in self.batches(frames, by_time=by_time):
            yield from self.estimated(answers)

    def aligned(self, frames: Sequence[Frame], *, by_time: bool = False) -> Iterator[Answer]:
        """Align frames as :meth:`__call__` does, without estimates."""
        for answers in self.batches(frames, by_time=by_time):
            yield from answers

    def batches(self, frames: Sequence[Frame], *, by_time: bool = False) -> Iterator[list[Answer]]:
        """Yield the aligned frames in batches of one kind, ready for :meth:`estimated`."""
        chosen: list[_Chosen] = []
        for frame in frames:
            try:
                model = self._choose(frame)
                kind = () if isinstance(model, Refusal) else (model.name, *self._align.kind(frame))
            except Exception as error:
                model, kind = _failed(frame, error), ()
            if isinstance(model, Refusal):
                yield [Answer(frame, refusal=_with_unit(model, frame))]
            else:
                chosen.append((kind, model, frame))
        if by_time and all(np.isfinite(frame.time) for _, _, frame in chosen):
            chosen.sort(key=lambda item: item[2].time)
        for model, batch in self._batches(chosen):
            yield from self._aligned(batch, model)

    def _choose(self, frame: Frame) -> Estimator | Refusal:
        if self._named is not None:
            return check_model(self._named, frame.energy, frame.mu, frame.element)
        return choose_model(self._models, frame.energy, frame.mu, frame.element, frame.edge)

    def _batches(self, chosen: Sequence[_Chosen]) -> Iterator[tuple[Estimator, list[Frame]]]:
        """Yield frames that can be aligned in one call; only neighbours if their order matters."""
        if self._align.order_matters:
            groups = [list(group) for _, group in groupby(chosen, lambda item: item[0])]
        else:
            by_kind: dict[tuple[Hashable, ...], list[_Chosen]] = {}
            for item in chosen:
                by_kind.setdefault(item[0], []).append(item)
            groups = list(by_kind.values())
        for group in groups:
            for k in range(0, len(group), self._max_batch):
                yield group[0][1], [frame for _, _, frame in group[k : k + self._max_batch]]

    def _aligned(self, frames: Sequence[Frame], model: Estimator) -> Iterator[list[Answer]]:
        """Align frames in one batch; if that fails, align each one alone."""
        try:
            aligned = self._align(frames, model)
        except Exception as error:
            if len(frames) == 1:
                yield [Answer(frames[0], model, _failed(frames[0], error))]
            else:
                for frame in frames:
                    yield from self._aligned([frame], model)
        else:
            refused = [r and _with_unit(r, frame) for r, frame in zip(aligned.refused, frames, strict=True)]
            yield [Answer(frame, model, refused[i], aligned, i) for i, frame in enumerate(frames)]

    def estimated(self, answers: list[Answer]) -> list[Answer]:
        """Add estimates to a batch of aligned frames; if the model fails on it, estimate the frames one by one.

        The batches must come in order; another thread may align the next ones in the meantime.
        """
        good = [i for i, answer in enumerate(answers) if answer.refusal is None]
        if not good:
            return answers
        try:
            estimates = _flagged(self._estimates([answers[i] for i in good]), [answers[i].flags for i in good])
        except Exception as error:
            if len(answers) == 1:
                answers[0].refusal = _failed(answers[0].frame, error)
                return answers
            return [alone for answer in answers for alone in self.estimated([answer])]
        for place, i in enumerate(good):
            answers[i].estimates, answers[i].place = estimates, place
        finite = estimates.finite if isinstance(estimates, Estimates) else np.zeros(len(good), bool)
        for place in np.flatnonzero(~finite).tolist():
            if wrong := _not_finite(estimates[place]):
                answers[good[place]].refusal = Refusal(Reason.ESTIMATE_NOT_FINITE, wrong)
        return answers

    def _estimates(self, good: Sequence[Answer]) -> Sequence[Estimate]:
        model = good[0].model
        assert model is not None
        quantities, spectra, _ = rows_of(good, with_lines=False)
        if self._energy_uncertainty is None:
            return model.estimate(spectra)
        noise, sd, frame_sd = (quantities[name] for name in ("noise", "energy_sd_ev", "energy_sd_frame_ev"))

        def noisy(i: int, noise: float, copies: int) -> NDArray[np.float32]:
            frame, shift_ev = good[i].frame, good[i].quantities["energy_shift_ev"]
            # The seed depends on the measured data alone, so that a frame has the same answer in any batch.
            rng = np.random.default_rng(zlib.crc32(frame.mu.tobytes()))
            return add_noise(spectra[i], noise, frame.energy, shift_ev, model.grid, model.edge, copies, rng)

        series = [answer.frame.series for answer in good]
        errors = FrameErrors(noise, frame_sd, noisy)
        sds = self._energy_uncertainty(series, model, spectra, sd, errors, hurried=self.hurried)
        estimates = _scattering(model.estimate(spectra, sds.energies), sds.frames)
        if not self._energy_uncertainty.reused:
            return estimates
        with_others, reused = set(self._energy_uncertainty.reused), (Flag.ENERGY_UNCERTAINTY_REUSED,)
        return _flagged(estimates, [reused if i in with_others else () for i in range(len(good))])


def _scattering(estimates: Sequence[Estimate], sd_frame: Mapping[str, Array]) -> Sequence[Estimate]:
    """Return estimates with the standard deviations between repeats, (N,) by descriptor."""
    if isinstance(estimates, Estimates):
        return estimates.scattering(sd_frame)
    return [
        replace(e, descriptors={name: d.scattering(float(sd_frame[name][i])) for name, d in e.descriptors.items()})
        for i, e in enumerate(estimates)
    ]


def _flagged(estimates: Sequence[Estimate], flags: Sequence[tuple[Flag, ...]]) -> Sequence[Estimate]:
    """Return the N estimates with further flags after their own."""
    if isinstance(estimates, Estimates):
        return estimates.flagged(flags)
    return [replace(e, flags=e.flags + more) for e, more in zip(estimates, flags, strict=True)]


def _not_finite(estimate: Estimate) -> str:
    """Name the values of an estimate that are not finite; empty if all are finite."""
    numbers: dict[str, tuple[float, ...]] = {
        name: (d.mean, d.lo, d.hi, d.p or 0.0) for name, d in estimate.descriptors.items()
    }
    numbers["ood_score"] = (estimate.ood_score,)
    return ", ".join(name for name, values in numbers.items() if not all(map(math.isfinite, values)))


def _with_unit(refusal: Refusal, frame: Frame) -> Refusal:
    """Add a hint to a refusal that the unit may be wrong, if the energies fit an edge only in keV."""
    if refusal.reason not in (Reason.NO_MODEL, Reason.DOES_NOT_COVER_THE_GRID) or not are_kev(frame.energy):
        return refusal
    return refusal._replace(detail=f"{refusal.detail}; the energies look like keV, and their unit says eV")


def _failed(frame: Frame, error: Exception) -> Refusal:
    unexpected = None if isinstance(error, InputError) else error  # it states its own remedy
    _log.error("frame not served", exc_info=unexpected, run=frame.run_uid, frame=frame.seq_num, **frame.scan.named())
    return Refusal(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
