"""ONNX Runtime, on the CPU: the file ``model.onnx`` that ``xas-agent models export`` writes."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..card import ModelError
from . import CPU_BATCH_ROWS

INPUT, OUTPUT = "spectra", "answers"
_ERRORS_ONLY = 3  # its warnings concern hardware that it searches for, and its optimisations


class ONNXRuntime:
    """A file ``model.onnx``; implements :class:`~xas_agent.models.engines.Engine`. It imports no torch.

    Parameters
    ----------
    file : the file
    threads : CPU threads

    Raises
    ------
    ModelError
        ONNX Runtime cannot load the file.
    """

    def __init__(self, file: Path, threads: int = 1) -> None:
        onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # A thread that waits in a loop would take a whole core from the rest of the agent.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its many types share no base class
            raise ModelError(f"{file}: ONNX Runtime cannot load it: {error}") from None

    def __call__(self, spectra: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return answers as :meth:`Engine.__call__` does."""
        if len(spectra) <= CPU_BATCH_ROWS:
            return self._run(spectra)
        starts = range(0, len(spectra), CPU_BATCH_ROWS)
        return np.concatenate([self._run(spectra[k : k + CPU_BATCH_ROWS]) for k in starts])

    def _run(self, spectra: NDArray[np.float32]) -> NDArray[np.float32]:
        (answers,) = self._session.run([OUTPUT], {INPUT: spectra})
        return np.asarray(answers, np.float32)
