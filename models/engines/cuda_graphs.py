"""TorchScript in CUDA graphs: the kernels of a batch, recorded once, start together instead of one by one.

It has not run on a GPU yet. Before a recorded batch serves, its answers are compared with those of the plain module,
which answers instead if they differ.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...agent.types import get_logger
from .torchscript import TorchScript

_log = get_logger()

BUCKETS = (1, 8, 32, 128, 512)
"""Sizes of the recorded batches; any other batch uses the smallest one with enough rows."""
_WARM_UPS = 3  # number of calls after which TorchScript has specialised the module


class Recorded:
    """A batch of ``rows`` spectra, recorded as a CUDA graph.

    Parameters
    ----------
    module : module on the GPU, (rows, points) → (rows, columns)
    rows, points : size of the batch

    Raises
    ------
    RuntimeError, AssertionError
        CUDA is not available, lacks memory, or the module contains an operation that cannot be recorded.
    """

    def __init__(self, module: Callable[[Tensor], Tensor], rows: int, points: int) -> None:
        self._sent = torch.ones(rows, points).pin_memory()
        self._input = self._sent.cuda()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                module(self._input)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):  # other threads may use CUDA meanwhile
            self._output = module(self._input)
        self._received = torch.empty_like(self._output, device="cpu").pin_memory()

    def __call__(self, spectra: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the answers for at most ``rows`` spectra; the other rows hold an earlier batch and are ignored."""
        self._sent[: len(spectra)].copy_(torch.from_numpy(spectra))
        self._input.copy_(self._sent, non_blocking=True)
        self._graph.replay()
        self._received.copy_(self._output, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return self._received[: len(spectra)].numpy().copy()


class CUDAGraphs:
    """A file ``model.ts`` in CUDA graphs; implements :class:`~xas_agent.models.engines.Engine`.

    Batches that cannot be recorded, or that are answered differently, use the plain module, and a warning states why.
    If a graph fails later, the plain module answers from then on.

    Parameters
    ----------
    folder : model folder
    points : number of points of a spectrum

    Raises
    ------
    ModelError
        As for :class:`~xas_agent.models.engines.torchscript.TorchScript` with the device ``cuda``.
    """

    @torch.inference_mode()
    def __init__(self, folder: Path, points: int) -> None:
        self._plain = TorchScript(folder, "cuda")
        self._recorded = recorded_batches(folder.name, self._plain.module, self._plain, points)

    @torch.inference_mode()
    def __call__(self, spectra: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return answers as :meth:`Engine.__call__` does."""
        answers = [self._part(spectra[first : first + rows]) for first, rows in parts(len(spectra))]
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def _part(self, spectra: NDArray[np.float32]) -> NDArray[np.float32]:
        recorded = self._recorded.get(bucket(len(spectra)))
        if recorded is not None:
            try:
                return recorded(spectra)
            except RuntimeError as error:
                _log.warning("CUDA graph failed: the plain module answers", error=str(error).partition("\n")[0])
                self._recorded = {}
        return self._plain(spectra)


def bucket(rows: int) -> int:
    """Return the size of the recorded batch for a number of rows; at most the largest one."""
    return next(size for size in BUCKETS if size >= rows)


def parts(rows: int) -> list[tuple[int, int]]:
    """Return first row and number of rows of the parts into which a batch is divided."""
    return [(first, min(BUCKETS[-1], rows - first)) for first in range(0, rows, BUCKETS[-1])] or [(0, 0)]


def recorded_batches(
    name: str,
    module: Callable[[Tensor], Tensor],
    plain: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    points: int,
) -> dict[int, Recorded]:
    """Return the batches that can be recorded and give the answers of the plain module, to the last bit.

    Parameters
    ----------
    name : name of the model, for the log
    module : module on the GPU
    plain : the same module for arrays, which it moves to the GPU
    points : number of points of a spectrum
    """
    found: dict[int, Recorded] = {}
    random = np.random.default_rng(0)
    for rows in BUCKETS:
        spectra = (1 + 0.1 * random.standard_normal((rows, points))).astype(np.float32)
        try:
            recorded = Recorded(module, rows, points)
            same = np.array_equal(recorded(spectra), plain(spectra), equal_nan=True)
            why = "" if same else "its answers differ from those of the plain module"
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            recorded, why = None, str(error).partition("\n")[0]
        if why:
            _log.warning("CUDA graph not used: the plain module answers", model=name, rows=rows, reason=why)
        elif recorded is not None:
            found[rows] = recorded
    return found
