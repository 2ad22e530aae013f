"""The network against an earlier file of it, or on another engine: time on one core, and differences of the answers.

``python benchmarks/network.py OLD… [--rounds N] [--keep] [--onnx FOLDER]`` takes model folders of an earlier version,
by name the same as shipped ones, for instance of::

    git worktree add /tmp/earlier v0.1.0
    python benchmarks/network.py /tmp/earlier/models/shipped/*

Each version answers in a process and thread of its own, as its agent ran it: batches pass 16 rows at once and glibc
returns freed memory before; now the engine of :mod:`xas_agent.models.engines` chooses the rows, and freed memory is
kept. Both answer in turns of about 32 frames. Times are the thread's processor time, which other work on the machine
does not add to, by frame; printed are medians over the rounds and the range of the ratio. ``--keep`` has the earlier
version keep freed memory too, as its agent did not, so that the ratio is of the networks alone.

With ``--onnx FOLDER`` ONNX Runtime answers now, from model folders of the same names there; this compares both
engines of the present version::

    for name in co-k fe-k; do xas-agent models export $name --out exported/$name; done
    python benchmarks/network.py models/shipped/{co,fe}-k --onnx exported --earlier-rows 16 --keep
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from xas_agent.models import card as cards
from xas_agent.models.convert import plausible_spectra, served_of
from xas_agent.models.engines import EngineName, load_engine
from xas_agent.models.engines.torchscript import load_module
from xas_agent.models.runtime import keep_freed_memory

FRAMES = 32
BATCHES = (1, 8, 16, 256)
Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def earlier_network(folder: Path, rows: int) -> Forward:
    """Return the network of a folder, which takes at most so many rows at once."""
    module = torch.jit.freeze(load_module(folder, torch.device("cpu")))

    @torch.inference_mode()
    def forward(spectra: NDArray[np.float32]) -> NDArray[np.float32]:
        x = torch.from_numpy(spectra)
        return (module(x) if len(x) <= rows else torch.cat([module(part) for part in x.split(rows)])).numpy()

    return forward


def present_network(folder: Path, engine: EngineName) -> Forward:
    """Return the network of a folder as the agent loads it."""
    return load_engine(folder, cards.verify(folder), engine, "cpu", threads=1)


def serve(pipe: Connection, keep: bool, load: Callable[..., Forward], *given: object) -> None:
    """Answer batches with the processor time by frame, ms, and the answers, until the other end closes."""
    torch.set_num_threads(1)
    if keep:
        keep_freed_memory()
    forward = load(*given)
    while True:
        try:
            x = pipe.recv()
        except EOFError:
            return
        calls = max(1, FRAMES // len(x))
        forward(x)  # not timed: the other network has filled the caches
        start = time.thread_time()
        for _ in range(calls):
            forward(x)
        spent = 1e3 * (time.thread_time() - start) / calls / len(x)
        pipe.send((spent, forward(x)))


def started(keep: bool, load: Callable[..., Forward], *given: object) -> Connection:
    """Start a process that serves a network, and return the pipe to it."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(there, keep, load, *given), daemon=True
    )
    process.start()
    there.close()
    return here


def compare(earlier: Path, earlier_rows: int, keep: bool, rounds: int, onnx: Path | None) -> str:
    """Return a line of the table for one model."""
    folder = cards.find(earlier.name) if onnx is None else onnx / earlier.name
    spectra = plausible_spectra(served_of(cards.find(earlier.name)), max(BATCHES)).numpy()
    before = started(keep, earlier_network, earlier, earlier_rows)
    now = started(True, present_network, folder, "torchscript" if onnx is None else "onnx")

    def answered(pipe: Connection, rows: int) -> tuple[float, NDArray[np.float32]]:
        pipe.send(spectra[:rows])
        return pipe.recv()

    parts, difference = [f"{earlier.name:6}"], 0.0
    for n in BATCHES:
        for pipe in (before, now) * 3:
            answered(pipe, n)
        times: list[tuple[float, float]] = []
        for _ in range(rounds):
            (old, old_answers), (new, new_answers) = answered(before, n), answered(now, n)
            times.append((old, new))
            difference = max(difference, float(np.abs(old_answers - new_answers).max()))
        ratios = sorted(a / b for a, b in times)
        old, new = (statistics.median(t[k] for t in times) for k in range(2))
        parts.append(f"{old:6.3f} {new:6.3f} {statistics.median(ratios):5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    before.close()
    now.close()
    return "  ".join([*parts, f"{difference:.1e}"])


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description="time of the network against an earlier file of it")
    parser.add_argument("earlier", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--onnx", type=Path)
    parser.add_argument("--earlier-rows", type=int, default=16)
    given = parser.parse_args()
    heads = "  ".join(f"{f'batch {n}: ms before, now, ratio':36}" for n in BATCHES)
    sys.stdout.write(f"model   {heads}  difference\n")
    for folder in given.earlier:
        sys.stdout.write(compare(folder, given.earlier_rows, given.keep, given.rounds, given.onnx) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
