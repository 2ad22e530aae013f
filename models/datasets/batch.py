"""Work on many items: in processes, told as it goes, and files that are whole or not there."""

import multiprocessing as mp
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from ..progress import Progress

DIED = "the process that worked on it died"
T = TypeVar("T")
R = TypeVar("R")


def each(
    task: str, function: Callable[[T], R], items: Sequence[T], jobs: int, progress: Progress, died: R
) -> Iterator[tuple[int, R]]:
    """(index, result) of every item as they come, from ``jobs`` processes; with one job from this process.

    Parameters
    ----------
    function : goes to the processes by pickle, as do the items; it must not raise for an item that it cannot do
    died : the result of an item whose process died of it, as compiled libraries and a lack of memory make it
    """
    progress(task, 0, len(items))
    results = _here(function, items) if jobs < 2 or len(items) < 2 else _elsewhere(function, items, jobs, died)
    for n, found in enumerate(results, 1):
        yield found
        progress(task, n, len(items))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to that takes the place of ``path`` at the end, whole; after an error ``path`` is as it was."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _here(function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
    return ((k, function(item)) for k, item in enumerate(items))


def _elsewhere(function: Callable[[T], R], items: Sequence[T], jobs: int, died: R) -> Iterator[tuple[int, R]]:
    """A pool of its own for each process: in a common one the death of one ends all, and nobody knows what of."""
    idle: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()

    def start() -> None:
        idle.put(ProcessPoolExecutor(1, mp_context=mp.get_context("spawn")))

    def one(k: int) -> tuple[int, R]:
        pool = idle.get()
        try:
            found = pool.submit(function, items[k]).result()
        except BrokenProcessPool:
            pool.shutdown()
            start()
            return k, died
        idle.put(pool)
        return k, found

    workers = min(jobs, len(items))
    for _ in range(workers):
        start()
    threads = ThreadPoolExecutor(workers)
    try:
        for done in as_completed([threads.submit(one, k) for k in range(len(items))]):
            yield done.result()
    finally:
        threads.shutdown(cancel_futures=True)
        while not idle.empty():
            idle.get().shutdown()
