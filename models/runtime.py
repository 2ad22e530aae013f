"""Estimates of aligned spectra by the model of a folder."""

import ctypes
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from ..agent.types import Array, Classes, Estimate, Estimates, Flag, get_logger
from . import card as cards
from .cores import core_count

_log = get_logger()

CPU_BATCH_ROWS = 8  # more rows do not fit the cache and take longer per row
_MALLOC_OPTIONS = {-3: 32 << 20, -1: 256 << 20}
"""M_MMAP_THRESHOLD, the largest that glibc takes, and M_TRIM_THRESHOLD, bytes."""
_GPU_RETRY_S, _LONGEST_GPU_RETRY_S = 1.0, 60.0
"""Time until a GPU that failed is tried again, s: the first, and the longest, which doubling reaches."""


class _Columns:
    """Where the network's output has a descriptor."""

    def __init__(self, card: cards.DescriptorCard, columns: slice, regressed: int | None) -> None:
        self.card, self.columns, self.regressed = card, columns, regressed
        self.classes = np.array(card.classes, float)
        self.labels = [str(c) for c in card.classes]
        self.quantile = ndtri((1 + card.interval.coverage) / 2)


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
        try:
            self._on_cpu = _load(folder, torch.device("cpu"))
        except RuntimeError as error:
            found = f"torch {torch.__version__} cannot load it ({_cause(error).partition('. ')[0]})"
            remedy = "restore it, or train the model again"
            raise cards.ModelError(f"{folder}/model.ts: {found}; expected a TorchScript network: {remedy}") from None
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
        self.reach = {d.name: d.reach() for d in self.card.descriptors}
        self._lowest, self._highest = np.array([d.bounds for d in self.card.descriptors]).T

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
        if len(x) <= CPU_BATCH_ROWS:
            return self._on_cpu(x).numpy().astype(np.float64)
        return torch.cat([self._on_cpu(part) for part in x.split(CPU_BATCH_ROWS)]).numpy().astype(np.float64)

    def _gpu_failed(self, error: RuntimeError) -> None:
        if not self._gpu_retry_s:
            _log.error("GPU failed: the CPU answers until it works again", model=self.name, error=_cause(error))
        self._gpu_retry_s = min(2 * self._gpu_retry_s or _GPU_RETRY_S, _LONGEST_GPU_RETRY_S)
        self._gpu_due = time.monotonic() + self._gpu_retry_s

    def _gpu_answered(self) -> None:
        if self._gpu_retry_s:
            _log.info("GPU answers again", model=self.name)
            self._gpu_retry_s = 0.0

    def estimate(
        self, spectra: NDArray[np.float32], extra_sd: Mapping[str, Array] | None = None
    ) -> Sequence[Estimate]:
        """As :meth:`Estimator.estimate`."""
        if len(spectra) == 0:
            return []
        out = self.forward(spectra)
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


def load_module(folder: Path, device: torch.device) -> Any:
    """Return the module of a model folder, with weights in single precision; the file has them in half precision."""
    module = torch.jit.load(folder / "model.ts", map_location=device).eval()
    for weight in module.parameters():
        weight.data = weight.data.float()
    return module


def _load(folder: Path, device: torch.device) -> Any:
    return torch.jit.freeze(load_module(folder, device))


def _cause(error: RuntimeError) -> str:
    """Return the line of an error that names the cause; TorchScript's traceback comes before it."""
    lines = str(error).splitlines() or [""]
    return next((line for line in lines if "CUDA" in line), lines[-1]).strip()


def configure_torch(threads: int, fast: bool = False) -> None:
    """Set the CPU threads of torch, allow TF32 only if ``fast``, and keep freed memory, for the whole process.

    Only programs of the agent, such as its command, call it; the library does not.
    """
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = fast
    torch.backends.cudnn.allow_tf32 = fast
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory for the next frame, and return whether it does.

    By default it returns to the system what a forward pass frees, and the system maps it anew, page by page, for the
    next: up to half the time of a batch.
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
