"""Estimates of aligned spectra by the model of a folder."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from ..agent.types import Array, DescriptorEstimate, Estimate, Flag, get_logger
from . import card as cards
from .cores import core_count

_log = get_logger()

_CPU_BATCH_ROWS = 16  # more rows do not fit the cache and take longer per row
_GPU_RETRY_S, _LONGEST_GPU_RETRY_S = 1.0, 60.0
"""Time until a GPU that failed is tried again, s: the first, and the longest, which doubling reaches."""


class Model:
    """A loaded model folder; implements :class:`xas_agent.agent.types.protocols.Estimator`.

    Parameters
    ----------
    folder : model folder, whose file must match its card
    device : ``cpu``, ``cuda``, or ``auto`` for CUDA if available

    Raises
    ------
    ModelError
        The folder is not a model, its file does not match its card, or CUDA is not available.

    Notes
    -----
    If the GPU fails, as when another program fills its memory, the CPU answers; the GPU is tried again after 1 s,
    and then at intervals of up to 60 s.

    The model does not change torch's settings of the whole process: the number of CPU threads, and whether a GPU may
    round to TF32 in convolutions, which is torch's default and shifts estimates by up to 1e-3.
    :func:`configure_torch` sets both.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        self.card = cards.verify(folder)
        self.name, self.sha256 = self.card.name, self.card.sha256
        self.grid = self.card.grid.grid()
        self.absorber, self.edge_name = self.card.absorber, self.card.edge
        self.edge = self.card.edge_of_absorber()
        self.units = {d.name: d.unit for d in self.card.descriptors}
        self.single_site = frozenset(d.name for d in self.card.descriptors if not d.mixture)
        if device == "cuda" and not torch.cuda.is_available():
            raise cards.ModelError(f"{folder}: device cuda is not available to torch; use auto or cpu")
        self.device = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
        self._on_cpu = _load(folder, torch.device("cpu"))
        try:
            self.module = self._on_cpu if self.device.type == "cpu" else _load(folder, self.device)
        except RuntimeError as error:  # CUDA's errors, and those of its memory
            if device == "cuda":
                raise cards.ModelError(f"{folder}: cannot be loaded on the GPU: {_cause(error)}") from None
            _log.error("GPU failed: the CPU answers", model=self.name, error=_cause(error))
            self.device, self.module = torch.device("cpu"), self._on_cpu
        self._gpu_retry_s, self._gpu_due = 0.0, 0.0
        self._descriptors = self._columns()
        self._regressed_at = sum(len(d.classes) for d in self.card.descriptors)

    def warm_up(self, batches: tuple[int, ...] = (1, 8, 1)) -> None:
        """Run the network until TorchScript has specialised it, so that the first frame is as fast as the others."""
        for n in batches * 2:
            self.forward(np.zeros((n, len(self.grid)), np.float32))

    @torch.inference_mode()
    def forward(self, spectra: NDArray[np.float32]) -> Array:
        """Run the network: (N, G) → (N, columns), in the order of :class:`~xas_agent.models.card.Card`."""
        x = torch.from_numpy(np.ascontiguousarray(spectra, np.float32))
        if self.device.type != "cpu" and time.monotonic() >= self._gpu_due:
            try:
                out = self.module(x.to(self.device)).cpu()
            except RuntimeError as error:  # CUDA's errors, and those of its memory
                self._gpu_failed(error)
            else:
                self._gpu_answered()
                return out.numpy().astype(np.float64)
        parts = x.split(_CPU_BATCH_ROWS) if len(x) else (x,)
        return torch.cat([self._on_cpu(part) for part in parts]).numpy().astype(np.float64)

    def _gpu_failed(self, error: RuntimeError) -> None:
        if not self._gpu_retry_s:
            _log.error("GPU failed: the CPU answers until it works again", model=self.name, error=_cause(error))
        self._gpu_retry_s = min(2 * self._gpu_retry_s or _GPU_RETRY_S, _LONGEST_GPU_RETRY_S)
        self._gpu_due = time.monotonic() + self._gpu_retry_s

    def _gpu_answered(self) -> None:
        if self._gpu_retry_s:
            _log.info("GPU answers again", model=self.name)
            self._gpu_retry_s = 0.0

    def estimate(self, spectra: NDArray[np.float32], extra_sd: Mapping[str, Array] | None = None) -> list[Estimate]:
        """As :meth:`Estimator.estimate`."""
        if len(spectra) == 0:
            return []
        out = self.forward(spectra)
        stop_ev = self.grid.energy[np.isfinite(spectra).sum(axis=1) - 1]
        columns = {name: self._read(name, out, stop_ev, (extra_sd or {}).get(name)) for name in self._descriptors}
        scores = out[:, -1].tolist()
        return [
            Estimate(
                {name: make(i) for name, make in columns.items()},
                score,
                (Flag.OUT_OF_DISTRIBUTION,) if not score <= 1.0 else (),
            )
            for i, score in enumerate(scores)
        ]

    def _columns(self) -> dict[str, tuple[cards.DescriptorCard, slice | None, int | None]]:
        """Card, columns of the classes and number of the regressed quantity of each descriptor."""
        columns: dict[str, tuple[cards.DescriptorCard, slice | None, int | None]] = {}
        first = 0
        for d in self.card.descriptors:
            head = d.mean_head if d.kind == "classified" else d.name
            number = self.card.regressed.index(head) if head is not None else None
            columns[d.name] = d, slice(first, first + len(d.classes)) if d.classes else None, number
            first += len(d.classes)
        return columns

    def _read(self, name: str, out: Array, stop_ev: Array, extra_sd: Array | None):
        """Return a function that builds a row's estimate of one descriptor from arrays computed here."""
        card, columns, number = self._descriptors[name]
        p = classes = None
        if columns is not None:
            p, classes = out[:, columns], np.array(card.classes, float)
        if number is not None:
            column = self._regressed_at + number
            mean, sd = out[:, column], out[:, column + len(self.card.regressed)]
        else:
            assert p is not None  # a descriptor without classes has a regressed quantity
            assert classes is not None
            mean = p @ classes
            sd = np.sqrt(np.maximum(p @ classes**2 - mean**2, 0.0))
        half = card.interval.half_width(sd, stop_ev)
        if extra_sd is not None:
            half = np.hypot(half, ndtri((1 + card.interval.coverage) / 2) * extra_sd)
        low, high = (classes[0], classes[-1]) if classes is not None else (card.lowest, None)
        # Intervals are clipped to possible values, but always contain the mean.
        lo = mean - half if low is None else np.maximum(mean - half, np.minimum(mean, low))
        hi = mean + half if high is None else np.minimum(mean + half, np.maximum(mean, high))
        means, los, his = mean.tolist(), lo.tolist(), hi.tolist()
        if p is None or classes is None:
            return lambda i: DescriptorEstimate(means[i], los[i], his[i])
        best = p.argmax(axis=1)
        values, tops, rows = classes[best].tolist(), p.max(axis=1).tolist(), p.tolist()
        labels = [str(c) for c in card.classes]
        return lambda i: DescriptorEstimate(
            means[i], los[i], his[i], values[i], tops[i], dict(zip(labels, rows[i], strict=True))
        )


def _load(folder: Path, device: torch.device) -> Any:
    return torch.jit.freeze(torch.jit.load(folder / "model.ts", map_location=device).eval())


def _cause(error: RuntimeError) -> str:
    """Return the line of an error that names the cause; TorchScript's traceback comes before it."""
    lines = str(error).splitlines() or [""]
    return next((line for line in lines if "CUDA" in line), lines[-1]).strip()


def configure_torch(threads: int) -> None:
    """Set the CPU threads of torch and forbid TF32, for the whole process.

    Only programs of the agent, such as its command, call it; the library does not.
    """
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def default_threads() -> int:
    """Return the number of CPU threads for serving: half the available cores, at most 4.

    The network is small, and on a shared machine threads that wait for each other take longer than a single one.
    """
    return max(1, min(4, core_count() // 2))
