"""Processes many items in parallel with progress, and replaces files as a whole."""

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

DIED = "the process that worked on it ended unexpectedly"
T = TypeVar("T")
R = TypeVar("R")


def each(
    task: str, function: Callable[[T], R], items: Sequence[T], jobs: int, progress: Progress, died: R
) -> Iterator[tuple[int, R]]:
    """Yield (index, result) of every item in the order of completion, from ``jobs`` processes or this one.

    Parameters
    ----------
    task : name of the work in ``progress``
    function : must not raise; function and items are pickled
    jobs : number of processes; 1 works in this process
    died : result of an item whose process ended unexpectedly, by a compiled library or for lack of memory
    """
    progress(task, 0, len(items))
    results = _here(function, items) if jobs < 2 or len(items) < 2 else _elsewhere(function, items, jobs, died)
    for n, result in enumerate(results, 1):
        yield result
        progress(task, n, len(items))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` at the end; after an error ``path`` is unchanged."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _here(function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
    return ((k, function(item)) for k, item in enumerate(items))


def _elsewhere(function: Callable[[T], R], items: Sequence[T], jobs: int, died: R) -> Iterator[tuple[int, R]]:
    """Use one pool per process: in a common pool, the end of one process ends all, without naming the item."""
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
