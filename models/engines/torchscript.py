"""TorchScript, on the CPU or a GPU: the file ``model.ts`` of every model folder."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...agent.types import get_logger
from ..card import ModelError
from . import CPU_BATCH_ROWS

_log = get_logger()

_GPU_RETRY_S, _LONGEST_GPU_RETRY_S = 1.0, 60.0
"""Times until a failed GPU is tried again, s: the first, and the longest that doubling reaches."""


class TorchScript:
    """A file ``model.ts``; implements :class:`~xas_agent.models.engines.Engine`.

    If the GPU fails, for example because another program fills its memory, the CPU answers; the GPU is tried again
    after 1 s, and then at intervals of up to 60 s.

    Parameters
    ----------
    folder, device
        As for :class:`~xas_agent.models.runtime.Model`.

    Raises
    ------
    ModelError
            torch cannot load the file; or the device is ``cuda``, and CUDA is not available or lacks memory.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise ModelError(f"{folder}: device cuda is not available to torch; use auto or cpu")
        self.folder = folder
        self.device = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
        try:
            self._on_cpu = _load(folder, torch.device("cpu"))
        except RuntimeError as error:
            found = f"torch {torch.__version__} cannot load it ({_cause(error).partition('. ')[0]})"
            remedy = "restore it, or train the model again"
            raise ModelError(f"{folder}/model.ts: {found}; expected a TorchScript network: {remedy}") from None
        try:
            self.module = self._on_cpu if self.device.type == "cpu" else _load(folder, self.device)
        except RuntimeError as error:  # errors of CUDA and its memory
            if device == "cuda":
                raise ModelError(f"{folder}: cannot be loaded on the GPU: {_cause(error)}") from None
            _log.error("GPU failed: the CPU answers", model=folder.name, error=_cause(error))
            self.device, self.module = torch.device("cpu"), self._on_cpu
        self._gpu_retry_s, self._gpu_due = 0.0, 0.0

    @torch.inference_mode()
    def __call__(self, spectra: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return answers as :meth:`Engine.__call__` does."""
        x = torch.from_numpy(spectra)
        if self.device.type != "cpu" and time.monotonic() >= self._gpu_due:
            try:
                out = self.module(x.to(self.device)).cpu()
            except RuntimeError as error:  # errors of CUDA and its memory
                self._gpu_failed(error)
            else:
                self._gpu_answered()
                return out.numpy()
        if len(x) <= CPU_BATCH_ROWS:
            return self._on_cpu(x).numpy()
        return torch.cat([self._on_cpu(part) for part in x.split(CPU_BATCH_ROWS)]).numpy()

    def _gpu_failed(self, error: RuntimeError) -> None:
        if not self._gpu_retry_s:
            _log.error(
                "GPU failed: the CPU answers until it works again", model=self.folder.name, error=_cause(error)
            )
        self._gpu_retry_s = min(2 * self._gpu_retry_s or _GPU_RETRY_S, _LONGEST_GPU_RETRY_S)
        self._gpu_due = time.monotonic() + self._gpu_retry_s

    def _gpu_answered(self) -> None:
        if self._gpu_retry_s:
            _log.info("GPU answers again", model=self.folder.name)
            self._gpu_retry_s = 0.0


def load_module(folder: Path, device: torch.device) -> Any:
    """Return the module of a model folder, with weights in single precision; the file stores half precision."""
    module = torch.jit.load(folder / "model.ts", map_location=device).eval()
    for weight in module.parameters():
        weight.data = weight.data.float()
    return module


def _load(folder: Path, device: torch.device) -> Any:
    return torch.jit.freeze(load_module(folder, device))


def _cause(error: RuntimeError) -> str:
    """Return the line of an error that states the cause, without TorchScript's traceback."""
    lines = str(error).splitlines() or [""]
    return next((line for line in lines if "CUDA" in line), lines[-1]).strip()
