"""A model's estimates for many frames, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .array import Array
from .estimate import ESTIMATE_PARTS, DescriptorEstimate, Estimate
from .reasons import Flag

Flags = tuple[Flag, ...]


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of one descriptor, for N frames."""

    labels: tuple[str, ...]
    """Labels of the C classes."""
    value: Array
    """(N,) most probable classes."""
    p: Array
    """(N,) probabilities of the most probable classes."""
    probabilities: Array
    """(N, C) probabilities of all classes."""


@dataclass(frozen=True, eq=False)
class Estimates(Sequence[Estimate]):
    """The estimates of N frames; each item is created when it is requested."""

    names: tuple[str, ...]
    """Names of the D descriptors, in the order of the model card."""
    mean: Array
    """(N, D) values of the fields of :class:`DescriptorEstimate`."""
    lo: Array
    """(N, D) lower ends of the intervals."""
    hi: Array
    """(N, D) upper ends of the intervals."""
    ood_score: Array
    """(N,) out-of-distribution scores."""
    classes: Mapping[str, Classes] = field(default_factory=dict)
    """Classes of the classified descriptors, by name."""
    flags: Sequence[Flags] = ()
    """Flags of each of the N frames; empty if no frame has any."""
    sd_frame: Array | None = None
    """(N, D) standard deviations between repeats; None stands for 0."""

    @classmethod
    def of(cls, estimates: Sequence[Estimate]) -> "Estimates":
        """Pack the estimates of N frames, N > 0, with the same descriptors and classes."""
        first = estimates[0].descriptors
        columns = {name: [estimate.descriptors[name] for estimate in estimates] for name in first}

        def numbers(part: str) -> Array:
            rows = [[getattr(d, part) for d in column] for column in columns.values()]
            return np.array(rows, float).reshape(len(first), len(estimates)).T

        classes: dict[str, Classes] = {}
        for name, d in first.items():
            if d.value is not None:
                value, p = (np.array([getattr(e, part) for e in columns[name]], float) for part in ("value", "p"))
                known = np.array([[*e.probabilities.values()] for e in columns[name]], float)
                classes[name] = Classes(tuple(d.probabilities), value, p, known)
        scores = np.array([estimate.ood_score for estimate in estimates], float)
        mean, lo, hi, sd = map(numbers, ESTIMATE_PARTS)
        return cls(tuple(first), mean, lo, hi, scores, classes, [e.flags for e in estimates], sd)

    def rows(self, rows: slice) -> "Estimates":
        """Return the estimates of some of the frames."""
        classes = {
            name: Classes(c.labels, c.value[rows], c.p[rows], c.probabilities[rows])
            for name, c in self.classes.items()
        }
        sd = None if self.sd_frame is None else self.sd_frame[rows]
        numbers = (self.mean[rows], self.lo[rows], self.hi[rows], self.ood_score[rows])
        return Estimates(self.names, *numbers, classes, self.flags[rows], sd)

    def __len__(self) -> int:
        return len(self.ood_score)

    @overload
    def __getitem__(self, index: int) -> Estimate: ...
    @overload
    def __getitem__(self, index: slice) -> list[Estimate]: ...
    def __getitem__(self, index: int | slice) -> Estimate | list[Estimate]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        means, los, his, sds, scores = (column[index] for column in self._numbers)
        descriptors = {
            name: DescriptorEstimate(means[k], los[k], his[k], *self._classes_of(name, index), sd_frame=sds[k])
            for k, name in enumerate(self.names)
        }
        return Estimate(descriptors, scores, self.flags[index] if self.flags else ())

    @property
    def parts(self) -> tuple[Array, Array, Array, Array]:
        """The numbers named in ``ESTIMATE_PARTS``, (N, D) each."""
        return self.mean, self.lo, self.hi, np.zeros(self.mean.shape) if self.sd_frame is None else self.sd_frame

    @cached_property
    def _numbers(self) -> tuple[list[Any], ...]:
        return tuple(column.tolist() for column in (*self.parts, self.ood_score))

    @cached_property
    def _classified(self) -> dict[str, tuple[tuple[str, ...], list[float], list[float], list[list[float]]]]:
        return {
            name: (c.labels, c.value.tolist(), c.p.tolist(), c.probabilities.tolist())
            for name, c in self.classes.items()
        }

    def _classes_of(self, name: str, row: int) -> tuple[float | None, float | None, dict[str, float]]:
        if name not in self._classified:
            return None, None, {}
        labels, values, p, probabilities = self._classified[name]
        return values[row], p[row], dict(zip(labels, probabilities[row], strict=True))

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Whether all numbers of a frame are finite, (N,)."""
        columns = [self.ood_score, *(c.p for c in self.classes.values())]
        numbers = np.concatenate([self.mean, self.lo, self.hi, np.stack(columns, axis=1)], axis=1)
        return np.asarray(np.isfinite(numbers).all(axis=1))

    def scattering(self, sd_frame: Mapping[str, Array]) -> "Estimates":
        """Return these estimates with the standard deviations between repeats, (N,) by descriptor."""
        columns = [np.asarray(sd_frame[name]) for name in self.names]
        return replace(self, sd_frame=np.stack(columns, axis=1) if columns else None)

    def flagged(self, flags: Sequence[Flags]) -> "Estimates":
        """Return these estimates with further flags for each of the N frames, after their own."""
        own = self.flags or [()] * len(self)
        return replace(self, flags=[a + b for a, b in zip(own, flags, strict=True)])


def means_of(estimates: Sequence[Estimate]) -> tuple[tuple[str, ...], Array]:
    """Return the names of the descriptors, D, and the means, (N, D), of estimates by one model; N > 0."""
    if isinstance(estimates, Estimates):
        return estimates.names, estimates.mean
    names = tuple(estimates[0].descriptors)
    return names, np.array([[estimate.descriptors[name].mean for name in names] for estimate in estimates])
