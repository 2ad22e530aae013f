"""The answers of a model for many frames, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .array import Array
from .estimate import DescriptorEstimate, Estimate
from .reasons import Flag

Flags = tuple[Flag, ...]


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of one descriptor, for N frames."""

    labels: tuple[str, ...]
    """C labels."""
    value: Array
    """(N,) most probable class."""
    p: Array
    """(N,) its probability."""
    probabilities: Array
    """(N, C)"""


@dataclass(frozen=True, eq=False)
class Estimates(Sequence[Estimate]):
    """The estimates of N frames; the item of a frame is made when it is asked for."""

    names: tuple[str, ...]
    """D descriptors, in the order of the model card."""
    mean: Array
    """(N, D), as the fields of :class:`DescriptorEstimate`."""
    lo: Array
    """(N, D)"""
    hi: Array
    """(N, D)"""
    ood_score: Array
    """(N,)"""
    classes: Mapping[str, Classes] = field(default_factory=dict)
    """Of the classified descriptors."""
    flags: Sequence[Flags] = ()
    """N, or none."""
    sd_frame: Array | None = None
    """(N, D); None for 0."""

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

    @cached_property
    def _numbers(self) -> tuple[list[Any], ...]:
        sd = np.zeros(self.mean.shape) if self.sd_frame is None else self.sd_frame
        columns: list[Any] = [self.mean, self.lo, self.hi, sd, self.ood_score]
        return tuple(column.tolist() for column in columns)

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
        """(N,) whether all numbers of a frame are finite."""
        columns = [self.ood_score, *(c.p for c in self.classes.values())]
        numbers = np.concatenate([self.mean, self.lo, self.hi, np.stack(columns, axis=1)], axis=1)
        return np.asarray(np.isfinite(numbers).all(axis=1))

    def scattering(self, sd_frame: Mapping[str, Array]) -> "Estimates":
        """Return these estimates with the scatter of repeats, (N,) by descriptor."""
        columns = [np.asarray(sd_frame[name]) for name in self.names]
        return replace(self, sd_frame=np.stack(columns, axis=1) if columns else None)

    def flagged(self, flags: Sequence[Flags]) -> "Estimates":
        """Return these estimates with further flags, N, after their own."""
        own = self.flags or [()] * len(self)
        return replace(self, flags=[a + b for a, b in zip(own, flags, strict=True)])


def means_of(estimates: Sequence[Estimate]) -> tuple[tuple[str, ...], Array]:
    """Return the names of the descriptors, D, and the means, (N, D), of estimates by one model; N > 0."""
    if isinstance(estimates, Estimates):
        return estimates.names, estimates.mean
    names = tuple(estimates[0].descriptors)
    return names, np.array([[estimate.descriptors[name].mean for name in names] for estimate in estimates])
