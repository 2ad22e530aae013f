"""Frames → answers: the one path that streams, files and computed spectra take to their estimates.

Each frame gets a model, is aligned together with others of its kind, and is estimated with the uncertainty of its
energies. A frame that cannot be served gets an answer with the reason: every frame has exactly one answer.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..spectra import Aligned, series_key
from ..types import Estimate, Estimator, Flag, Frame, Reason, Refusal, get_logger
from .energy_uncertainty import EnergyUncertainty
from .model_choice import choose

_log = get_logger()


class Aligner(Protocol):
    """Frames of one kind → spectra on a model's grid: measured ones, or computed ones."""

    order_matters: bool
    """Whether a frame's alignment depends on the frames before it, so that their order matters."""

    def kind(self, frame: Frame) -> tuple[Hashable, ...]:
        """What frames must have in common to be aligned in one call."""
        ...

    def __call__(self, frames: Sequence[Frame], model: Estimator) -> Aligned:
        """Align frames of one kind."""
        ...


@dataclass(frozen=True)
class Answer:
    """What becomes of one frame: a refusal, or an aligned spectrum and its estimate."""

    frame: Frame
    model: Estimator | None = None
    """None where no model, or more than one, fits."""
    refusal: Refusal | None = None
    aligned: Aligned | None = None
    """Alignment of this frame, in row ``row``, and of others; None where the frame was refused before."""
    row: int = 0
    estimate: Estimate | None = None
    """Its flags are the model's, then those of the alignment; None where only an alignment was asked for."""

    @property
    def mu(self) -> NDArray[np.float32]:
        """(G,) on the grid and its footing; not to be used where the frame is refused."""
        assert self.aligned is not None
        return self.aligned.mu[self.row]

    @cached_property
    def quantities(self) -> Mapping[str, float]:
        """As :class:`~xas_agent.agent.spectra.align.Aligned` has them; empty where the frame was refused before."""
        return {} if self.aligned is None else {k: float(v[self.row]) for k, v in self.aligned.quantities.items()}

    @property
    def flags(self) -> tuple[Flag, ...]:
        """All that are known."""
        if self.estimate is not None:
            return self.estimate.flags
        return () if self.aligned is None else self.aligned.flags[self.row]


class FrameServer:
    """Serves frames in the order of time; how they are batched changes nothing but rounding.

    Parameters
    ----------
    models : to choose from, frame by frame
    align : keeps the series of the frames, if it knows any
    widths : the part of the intervals that comes from the energies; None where these are exact, as computed ones are
    named : whether the user named the one model, which then serves every frame
    most : frames that are aligned and estimated in one call
    """

    def __init__(
        self,
        models: Sequence[Estimator],
        align: Aligner,
        widths: EnergyUncertainty | None,
        *,
        named: bool = False,
        most: int = 256,
    ) -> None:
        self._models = models
        self._align = align
        self._widths = widths
        self._most = most
        self._named = models[0] if named and len(models) == 1 else None

    def __call__(self, frames: Sequence[Frame], *, by_time: bool = False) -> Iterator[Answer]:
        """Align and estimate frames.

        The answers come batch by batch, as soon as each is done: first the frames without a model, then the others.
        A failure costs one frame, whose answer is an ``INTERNAL_ERROR``.

        Parameters
        ----------
        frames : in the order of time
        by_time : whether they may come in another order: they are sorted if each has a time
        """
        for answers in self._batches_of_answers(frames, by_time):
            yield from self._estimated(answers)

    def aligned(self, frames: Sequence[Frame], *, by_time: bool = False) -> Iterator[Answer]:
        """Align frames as :meth:`__call__` does, without estimates."""
        for answers in self._batches_of_answers(frames, by_time):
            yield from answers

    def _batches_of_answers(self, frames: Sequence[Frame], by_time: bool) -> Iterator[list[Answer]]:
        """Answers without estimates, in batches of frames that are alike."""
        chosen: list[tuple[Estimator, Frame]] = []
        for frame in frames:
            model = self._choose(frame)
            if isinstance(model, Refusal):
                yield [Answer(frame, refusal=model)]
            else:
                chosen.append((model, frame))
        if by_time and all(np.isfinite(frame.time) for _, frame in chosen):
            chosen.sort(key=lambda pair: pair[1].time)
        for model, batch in self._batches(chosen):
            yield self._aligned(batch, model)

    def _choose(self, frame: Frame) -> Estimator | Refusal:
        if self._named is not None:
            return self._named
        return choose(self._models, frame.energy, frame.mu, frame.element, frame.edge)

    def _batches(self, chosen: Sequence[tuple[Estimator, Frame]]) -> Iterator[tuple[Estimator, list[Frame]]]:
        """Frames that can be aligned in one call; where their order matters, only neighbours are."""

        def kind(pair: tuple[Estimator, Frame]) -> tuple[Hashable, ...]:
            return pair[0].name, *self._align.kind(pair[1])

        if self._align.order_matters:
            groups = [list(group) for _, group in groupby(chosen, kind)]
        else:
            by_kind: dict[tuple[Hashable, ...], list[tuple[Estimator, Frame]]] = {}
            for pair in chosen:
                by_kind.setdefault(kind(pair), []).append(pair)
            groups = list(by_kind.values())
        for group in groups:
            for k in range(0, len(group), self._most):
                yield group[0][0], [frame for _, frame in group[k : k + self._most]]

    def _aligned(self, frames: Sequence[Frame], model: Estimator) -> list[Answer]:
        try:
            found = self._align(frames, model)
        except Exception as error:
            if len(frames) == 1:
                return [Answer(frames[0], model, _failed(frames[0], error))]
            return [answer for frame in frames for answer in self._aligned([frame], model)]
        return [Answer(frame, model, found.refused[i], found, i) for i, frame in enumerate(frames)]

    def _estimated(self, answers: list[Answer]) -> list[Answer]:
        """The same with estimates; where the model fails on some together, it gets them one by one."""
        good = [i for i, answer in enumerate(answers) if answer.refusal is None]
        if not good:
            return answers
        try:
            estimates = self._estimates([answers[i] for i in good])
        except Exception as error:
            if len(answers) == 1:
                return [replace(answers[0], refusal=_failed(answers[0].frame, error))]
            return [alone for answer in answers for alone in self._estimated([answer])]
        for i, estimate in zip(good, estimates, strict=True):
            whole = replace(estimate, flags=estimate.flags + answers[i].flags)
            answers[i] = replace(answers[i], estimate=whole)
        return answers

    def _estimates(self, good: Sequence[Answer]) -> Sequence[Estimate]:
        model = good[0].model
        assert model is not None
        spectra, beside = np.stack([answer.mu for answer in good]), None
        if self._widths is not None:
            sd = np.array([answer.quantities["energy_sd_ev"] for answer in good])
            beside = self._widths([series_key(answer.frame) for answer in good], model, spectra, sd)
        return model.estimate(spectra, beside)


def _failed(frame: Frame, error: Exception) -> Refusal:
    _log.exception("frame not served", run=frame.run_uid, frame=frame.seq_num)
    return Refusal(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
