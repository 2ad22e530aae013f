"""Engines that run the network of a model folder, each from its own file."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..card import Card, ModelError

EngineName = Literal["torchscript", "onnx", "cuda-graphs"]

ONNX_FILE = "model.onnx"

CPU_BATCH_ROWS = 16  # larger batches do not fit the cache and take longer per row


class Engine(Protocol):
    """A loaded network."""

    def __call__(self, spectra: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the answers (N, columns) for aligned spectra (N, G), NaN where unknown.

        The columns are in the order of :class:`~xas_agent.models.card.Card`.
        """
        ...


def check_engine(folder: Path, card: Card, engine: EngineName, device: str) -> None:
    """Check that an engine can run the network of a model folder, without loading either.

    Raises
    ------
    ModelError
        The card lists no file for this engine, the engine is not installed, or it does not run on the device.
    """
    if engine == "torchscript":
        return
    if engine == "cuda-graphs":
        _check_cuda(folder, device)
        return
    if device == "cuda":
        raise ModelError(f"{folder}: found device cuda; the engine onnx runs on the CPU: use auto or cpu")
    if ONNX_FILE not in card.files:
        raise ModelError(
            f"{folder}: its card lists no {ONNX_FILE}, which the engine onnx runs; xas-agent models export "
            f"{folder.name} --out FOLDER writes a model folder with it, to be named in model.use"
        )
    if find_spec("onnxruntime") is None:
        raise ModelError(f"{folder}: the engine onnx needs ONNX Runtime: pip install 'xas-agent[onnx]'")


def _check_cuda(folder: Path, device: str) -> None:
    import torch

    if device == "cpu":
        raise ModelError(f"{folder}: found device cpu; the engine cuda-graphs runs on a GPU: use auto or cuda")
    if not torch.cuda.is_available():
        raise ModelError(
            f"{folder}: the engine cuda-graphs needs a GPU, and torch finds none: use the engine torchscript, or onnx"
        )


def load_engine(folder: Path, card: Card, engine: EngineName, device: str = "auto", threads: int = 1) -> Engine:
    """Load the network of a model folder whose files match its card (:func:`~xas_agent.models.card.verify`).

    Parameters
    ----------
    folder, device
        As for :class:`~xas_agent.models.runtime.Model`.
    card : card of the folder
    threads : CPU threads of ONNX Runtime; torch has one number for the whole process

    Raises
    ------
    ModelError
        As for :func:`check_engine`, or the file cannot be loaded.
    """
    check_engine(folder, card, engine, device)
    if engine == "onnx":
        from .onnx_runtime import ONNXRuntime

        return ONNXRuntime(folder / ONNX_FILE, threads)
    if engine == "cuda-graphs":
        from .cuda_graphs import CUDAGraphs

        return CUDAGraphs(folder, len(card.grid.grid()))
    from .torchscript import TorchScript  # imports torch

    return TorchScript(folder, device)
