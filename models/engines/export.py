"""Exports a network to ONNX, and compares the engines' answers."""

import logging
import shutil
import warnings
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from .. import card as cards
from ..card import ModelError, sha256_of
from ..convert import TOLERANCE, plausible_spectra, served_of
from ..network import Served
from . import ONNX_FILE, EngineName, load_engine
from .onnx_runtime import INPUT, OUTPUT, ONNXRuntime

_COMPARED_SPECTRA = 256
_TRACED_ROWS = 2  # a batch of one would become a constant


def export(folder: Path, out: Path | None = None) -> float:
    """Write ``model.onnx`` beside the ``model.ts`` of a model folder, and its hash in the card.

    Parameters
    ----------
    folder : Path
    out : Path or None
        A new folder, to which the model is copied first. None: ``folder`` itself

    Returns
    -------
    Largest difference between the answers of both files to plausible spectra.

    Raises
    ------
    ModelError
        The folder cannot be exported, ``out`` exists, or the answers differ by more than
        :data:`~xas_agent.models.convert.TOLERANCE`; nothing is written.
    """
    if missing := [name for name in ("onnxruntime", "onnx", "onnxscript") if find_spec(name) is None]:
        raise ModelError(f"export needs {', '.join(missing)}: pip install 'xas-agent[onnx]'")
    if out is not None and out.exists():
        raise ModelError(f"{out}: exists; name a folder that does not")
    card, served = cards.verify(folder), served_of(folder)
    target = folder if out is None else out
    partial = target.with_name(f".{target.name}.{ONNX_FILE}")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_onnx(served, partial)
        spectra = plausible_spectra(served, _COMPARED_SPECTRA).numpy()
        difference = _largest(load_engine(folder, card, "torchscript", "cpu")(spectra), ONNXRuntime(partial)(spectra))
        if not difference <= TOLERANCE:
            raise ModelError(f"{folder}: as ONNX it answers differently by {difference:.1e}; nothing is written")
        if out is not None:
            shutil.copytree(folder, out)
        partial.replace(target / ONNX_FILE)
    finally:
        partial.unlink(missing_ok=True)
    files = {**card.files, ONNX_FILE: sha256_of(target / ONNX_FILE)}
    cards.write_card(target, card.model_copy(update={"files": files}))
    return difference


def write_onnx(served: Served, file: Path) -> None:
    """Write a network as ONNX, for batches of any size."""
    single = served.recall.single_serves()
    served.recall.single_serves = lambda: single  # torch.export supports no decision that depends on weights
    spectra = plausible_spectra(served, _TRACED_ROWS)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that this network does not need
    with warnings.catch_warnings(), redirect_stdout(StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")  # about its own deprecated calls
        program = torch.onnx.export(
            served,
            (spectra,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("frames")},),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(file)


def difference_of_engines(folder: Path) -> float:
    """Return the largest difference between the answers of both files of a model folder to plausible spectra.

    Raises
    ------
    ModelError
        A file does not match the card or cannot be loaded, or ONNX Runtime is not installed.
    """
    card, spectra = cards.verify(folder), plausible_spectra(served_of(folder), _COMPARED_SPECTRA).numpy()
    engines: tuple[EngineName, ...] = ("torchscript", "onnx")
    one, other = (load_engine(folder, card, engine, "cpu")(spectra) for engine in engines)
    return _largest(one, other)


def _largest(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.abs(one - other).max())
