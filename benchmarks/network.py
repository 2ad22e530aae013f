"""The network against an earlier file of it, or on another engine: time on one core, and differences of the answers.

``python benchmarks/network.py OLD… [--rounds N] [--keep]`` takes model folders of an earlier version, by name the
same as shipped ones, for instance of::

    git worktree add /tmp/earlier v0.1.0
    python benchmarks/network.py /tmp/earlier/models/shipped/*

Both files answer in turns of about 30 frames, in one process and one thread. Batches pass as each version passes them
on the CPU: 16 rows at once before, those of :mod:`xas_agent.models.runtime` now. Times are the thread's processor
time, which other work on the machine does not add to, by frame; printed are medians over the rounds and the range of
the ratio. ``--keep`` has glibc keep freed memory for both, as the agent does since.

With ``--onnx FOLDER`` ONNX Runtime answers now, from model folders of the same names there; this compares both
engines of the present version::

    for name in co-k fe-k; do xas-agent models export $name --out exported/$name; done
    python benchmarks/network.py models/shipped/{co,fe}-k --onnx exported --earlier-rows 8 --keep
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from xas_agent.models import card as cards
from xas_agent.models.convert import plausible_spectra, served_of
from xas_agent.models.engines import CPU_BATCH_ROWS, load_engine
from xas_agent.models.engines.torchscript import load_module
from xas_agent.models.runtime import keep_freed_memory

CPU = torch.device("cpu")
FRAMES = 32
BATCHES = (1, 8, 16, 256)


def frozen(folder: Path, rows: int) -> Callable[[Tensor], Tensor]:
    """Return the network of a folder, which takes at most so many rows at once."""
    module = torch.jit.freeze(load_module(folder, CPU))
    return lambda x: module(x) if len(x) <= rows else torch.cat([module(part) for part in x.split(rows)])


def on_onnx(folder: Path) -> Callable[[Tensor], Tensor]:
    """Return the network of a folder on ONNX Runtime."""
    engine = load_engine(folder, cards.verify(folder), "onnx", "cpu", threads=1)
    return lambda x: torch.from_numpy(engine(x.numpy()))


def ms_per_frame(forward: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Return the processor time of a frame, ms, over at least :data:`FRAMES` frames."""
    calls = max(1, FRAMES // len(x))
    forward(x)  # not timed: the other network has filled the caches
    start = time.thread_time()
    for _ in range(calls):
        forward(x)
    return 1e3 * (time.thread_time() - start) / calls / len(x)


@torch.inference_mode()
def compare(earlier: Path, earlier_rows: int, rounds: int, onnx: Path | None) -> str:
    """Return a line of the table for one model."""
    folder = cards.find(earlier.name)
    before = frozen(earlier, earlier_rows)
    now = frozen(folder, CPU_BATCH_ROWS) if onnx is None else on_onnx(onnx / earlier.name)
    spectra = plausible_spectra(served_of(folder), max(BATCHES))
    parts = [f"{earlier.name:8}"]
    for n in BATCHES:
        x = spectra[:n]
        for forward in (before, now) * 3:
            forward(x)
        times = [(ms_per_frame(before, x), ms_per_frame(now, x)) for _ in range(rounds)]
        ratios = sorted(a / b for a, b in times)
        old, new = (statistics.median(t[k] for t in times) for k in range(2))
        parts.append(f"{old:6.3f} {new:6.3f} {statistics.median(ratios):5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    difference = float((before(spectra) - now(spectra)).abs().max())
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
    torch.set_num_threads(1)
    if given.keep:
        keep_freed_memory()
    heads = "  ".join(f"{f'batch {n}: ms before, now, ratio':36}" for n in BATCHES)
    sys.stdout.write(f"model     {heads}  difference\n")
    for folder in given.earlier:
        sys.stdout.write(compare(folder, given.earlier_rows, given.rounds, given.onnx) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
