"""Runs long computations in processes and stores their results, so that an interrupted report continues."""

import hashlib
import json
import multiprocessing as mp
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ...progress import Progress

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Piece:
    """A long computation: its name, and a call that another process can make."""

    name: str
    depends: Any
    """Everything that the result depends on, as JSON; a change invalidates the stored file."""
    call: Callable[[], Mapping[str, NDArray[Any]]]

    @property
    def key(self) -> str:
        """Name of the file of the result."""
        text = json.dumps(self.depends, sort_keys=True, default=str)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def run_all(task: str, pieces: Sequence[Piece], folder: Path, jobs: int, progress: Progress) -> list[Arrays]:
    """Return the results of all pieces, in order, from files in ``folder`` or computed.

    Parameters
    ----------
    task : name of the work in ``progress``
    folder : folder of finished results
    jobs : number of pieces at the same time, each on one thread
    progress : called when a piece is finished
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{p.key}.npz" for p in pieces]
    missing = {path: p for p, path in zip(pieces, paths, strict=True) if not path.is_file()}
    done = len(pieces) - len(missing)
    progress(task, done, len(pieces), "kept from before")
    if missing:
        context = mp.get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(missing)), mp_context=context, initializer=_one_thread) as pool:
            running = {pool.submit(_work, p.call, path): p for path, p in missing.items()}
            for future in as_completed(running):
                future.result()
                done += 1
                progress(task, done, len(pieces), running[future].name)
    return [_read(path) for path in paths]


def _one_thread() -> None:
    """Limit numerical libraries of this worker process, loaded now or later, to one thread."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    threadpool_limits(1)
    torch.set_num_threads(1)


def _work(call: Callable[[], Mapping[str, NDArray[Any]]], path: Path) -> None:
    arrays: dict[str, Any] = dict(call())
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as f:
        np.savez_compressed(f, **arrays)
    partial.replace(path)


def _read(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as z:
        return {name: z[name] for name in z.files}
