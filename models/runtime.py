"""Estimates aligned spectra with the model of a folder."""

import ctypes
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..agent.types import Array, Classes, Estimate, Estimates, Flag
from . import card as cards
from .cores import core_count
from .engines import EngineName, load_engine

_MALLOC_OPTIONS = {-3: 32 << 20, -1: 256 << 20}
"""M_MMAP_THRESHOLD, with the largest value that glibc accepts, and M_TRIM_THRESHOLD, bytes."""


class _Columns:
    """Columns of a descriptor in the network's output."""

    def __init__(self, card: cards.DescriptorCard, columns: slice, regressed: int | None) -> None:
        self.card, self.columns, self.regressed = card, columns, regressed
        self.classes = np.array(card.classes, float)
        self.labels = [str(c) for c in card.classes]
        self.quantile = NormalDist().inv_cdf((1 + card.interval.coverage) / 2)


class Model:
    """A loaded model folder; implements :class:`xas_agent.agent.types.protocols.Estimator`.

    Parameters
    ----------
    folder : model folder, whose files must match its card
    device : ``cpu``, ``cuda``, or ``auto`` for CUDA if available
    engine : library that runs the network; ``onnx`` imports no torch
    threads : CPU threads of the engine ``onnx``; unset: half the cores, at most 4

    Raises
    ------
    ModelError
        The folder is not a model, a file does not match its card, or the engine is not available on the device.

    Notes
    -----
    The model does not change settings of torch that apply to the whole process: the number of CPU threads, and
    whether a GPU may round to TF32 in convolutions, which is torch's default and shifts estimates by up to 1e-3.
    :func:`configure_torch` sets both.
    """

    def __init__(
        self, folder: Path, device: str = "auto", engine: EngineName = "torchscript", threads: int | None = None
    ) -> None:
        self.card = cards.verify(folder)
        self.name, self.sha256 = self.card.name, self.card.sha256
        self.grid = self.card.grid.grid()
        self.absorber, self.edge_name = self.card.absorber, self.card.edge
        self.edge = self.card.edge_of_absorber()
        self.units = {d.name: d.unit for d in self.card.descriptors}
        self.single_site = frozenset(d.name for d in self.card.descriptors if not d.mixture)
        self.hardly_known = self.card.hardly_known
        self.engine = load_engine(folder, self.card, engine, device, threads or default_threads())
        self._descriptors = self._columns()
        self._regressed_at = sum(len(d.classes) for d in self.card.descriptors)
        self.reach = {d.name: d.reach() for d in self.card.descriptors}
        self._lowest, self._highest = np.array([d.bounds for d in self.card.descriptors]).T

    def warm_up(self, batches: tuple[int, ...] = (1, 8, 1)) -> None:
        """Run the network until the engine has specialised it, so that the first frame is as fast as later ones."""
        for n in batches * 2:
            self.forward(np.zeros((n, len(self.grid)), np.float32))

    def forward(self, spectra: NDArray[np.float32]) -> Array:
        """Run the network: (N, G) → (N, columns), in the order of :class:`~xas_agent.models.card.Card`."""
        return self.engine(np.ascontiguousarray(spectra, np.float32)).astype(np.float64)

    def estimate(
        self, spectra: NDArray[np.float32], extra_sd: Mapping[str, Array] | None = None
    ) -> Sequence[Estimate]:
        """Return estimates as :meth:`Estimator.estimate` does."""
        if len(spectra) == 0:
            return []
        out = self.forward(spectra)
        # Single-precision probabilities add up to 1 ± 1e-7; times the largest class, this would change means.
        for d in self._descriptors:
            out[:, d.columns] /= out[:, d.columns].sum(axis=1, keepdims=True)
        mean, lo, hi = self._intervals(out, spectra, extra_sd or {})
        score = out[:, -1]
        flags = [() if known else (Flag.OUT_OF_DISTRIBUTION,) for known in (score <= 1.0).tolist()]
        names = tuple(d.card.name for d in self._descriptors)
        classes = {d.card.name: self._classes_of(d, out) for d in self._descriptors if len(d.classes)}
        return Estimates(names, mean, lo, hi, score, classes, flags)

    def _columns(self) -> list[_Columns]:
        found, first = [], 0
        for d in self.card.descriptors:
            head = d.mean_head if d.kind == "classified" else d.name
            number = self.card.regressed.index(head) if head is not None else None
            found.append(_Columns(d, slice(first, first + len(d.classes)), number))
            first += len(d.classes)
        return found

    def _intervals(
        self, out: Array, spectra: NDArray[np.float32], extra_sd: Mapping[str, Array]
    ) -> tuple[Array, Array, Array]:
        """Return means and ends of the intervals (N, D) of all descriptors."""
        shape, regressed = (len(out), len(self._descriptors)), len(self.card.regressed)
        mean, sd, extra = np.empty(shape), np.empty(shape), np.zeros(shape)
        stop_ev = self.grid.energy[np.isfinite(spectra).sum(axis=1) - 1]
        for k, d in enumerate(self._descriptors):
            if d.regressed is not None:
                column = self._regressed_at + d.regressed
                mean[:, k], sd[:, k] = out[:, column], out[:, column + regressed]
            else:
                p = out[:, d.columns]
                mean[:, k] = p @ d.classes
                sd[:, k] = np.sqrt((p * (d.classes - mean[:, k, None]) ** 2).sum(axis=1))
            sd[:, k] = d.card.interval.half_width(sd[:, k], stop_ev)
            if d.card.name in extra_sd:
                extra[:, k] = d.quantile * extra_sd[d.card.name]
        half = np.hypot(sd, extra)
        # Intervals are clipped to possible values, but always contain the mean.
        lows = np.maximum(mean - half, np.minimum(mean, self._lowest))
        return mean, lows, np.minimum(mean + half, np.maximum(mean, self._highest))

    def _classes_of(self, d: _Columns, out: Array) -> Classes:
        p = out[:, d.columns]
        best = p.argmax(axis=1)
        return Classes(tuple(d.labels), d.classes[best], p[np.arange(len(p)), best], p)


def configure_torch(threads: int, fast: bool = False) -> None:
    """Set torch's number of CPU threads, allow TF32 only if ``fast``, and keep freed memory, for the whole process.

    Only programs of the agent, such as its command, call it; the library does not.
    """
    import torch

    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = fast
    torch.backends.cudnn.allow_tf32 = fast
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next frame; return whether it does.

    By default glibc returns the memory freed by a forward pass to the system, which maps it again, page by page, for
    the next pass: up to half the time of a batch.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):  # not glibc
        return False
    return all(libc.mallopt(option, size) for option, size in _MALLOC_OPTIONS.items())  # pyright: ignore


def default_threads() -> int:
    """Return the number of CPU threads for serving: half the available cores, at most 4.

    The network is small, and on a shared machine threads that wait for each other take longer than a single one.
    """
    return max(1, min(4, core_count() // 2))
