"""How speed grows with the batch and the number of agents, and cost with the number of frames; tables and a plot.

    python benchmarks/scaling.py [--only batch agents frames] [--rounds 3] [--page FILE] [--figure FILE] [--long]

- batch: frames per second of processor time of the bare forward on one core against the batch, of each engine that is
  installed and of the network of 0.1.0; on a GPU per second
- agents: frames/s of 1 to 8 agents in a process each, on a ZMQ stream each or on one NATS stream. What publishes runs
  on the same machine, so that the agents have less than all of its cores
- frames: processor time, memory and files of an agent that answers 100, 1000 and 10 000 frames (``--long``: 100 000),
  with journal and files, in a process of its own (benchmarks/campaigns/frames.py); its start is part of the time

The sizes take turns within a round. The tables have the median and the range of the rounds.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from figures import Row, Spread, fill, load, machine, markdown, number, table
from forward import Networks, Timer, networks, time_call
from many_agents import ways
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xas_agent.models import card as cards
from xas_agent.models.runtime import Model

BATCHES = tuple(2**k for k in range(11))
AGENTS = (1, 2, 4, 8)
FRAMES = (100, 1000, 10_000)
LONG_FRAMES = 100_000
FIGURE = Path(__file__).parents[1] / "docs" / "assets" / "scaling.svg"
GPU = "TorchScript, GPU"
JOURNAL, DOCUMENTS = "journal.sqlite", "documents.jsonl"

Curves = dict[str, dict[int, Spread]]
"""By name and size."""


class Cost(NamedTuple):
    """What a number of frames costs."""

    processor_s: float
    memory_mb: float
    documents_mb: float
    journal_mb: float
    other_mb: float
    """Of the other files."""


def _rounds(
    rounds: int, sizes: Sequence[int], ways: dict[str, Callable[[int], Sequence[float]]]
) -> dict[str, dict[int, list[Spread]]]:
    """Return the spread of each value that the ways return, by way and size; they take turns."""
    found: dict[tuple[str, int], list[Sequence[float]]] = defaultdict(list)
    for k in range(rounds):
        for size in sizes:
            for name, way in ways.items():
                found[name, size].append(way(size))
        print(f"{', '.join(ways)}: round {k + 1} of {rounds}", file=sys.stderr, flush=True)
    return {
        name: {size: [Spread.of(values) for values in zip(*found[name, size], strict=True)] for size in sizes}
        for name in ways
    }


@contextmanager
def engines(name: str) -> Iterator[dict[str, Timer]]:
    """Yield timers of all that runs the network here."""
    with ExitStack() as stack:
        both: Networks = stack.enter_context(networks(name))
        found: dict[str, Timer] = {"TorchScript": both.now, "TorchScript, 0.1.0": both.former}
        if find_spec("onnxruntime") and find_spec("onnxscript"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / name
            command = [sys.executable, "-m", "xas_agent", "models", "export", name, "--out", str(folder)]
            subprocess.run(command, check=True, capture_output=True)
            onnx = Model(folder, engine="onnx", threads=1)
            found["ONNX Runtime"] = lambda x, **keywords: time_call(lambda: onnx.forward(x), **keywords)
        if torch.cuda.is_available():
            gpu = Model(cards.find(name), device="cuda")
            found[GPU] = lambda x, **_: time_call(lambda: gpu.forward(x))
        yield found


def measure_batches(name: str, rounds: int, sizes: Sequence[int] = BATCHES) -> Curves:
    """Return frames/s of each engine by batch."""
    with engines(name) as timers:
        torch.set_num_threads(1)  # its processor time is then that of this thread
        grid = Model(cards.find(name)).grid
        step = np.clip(grid.energy / 10.0, 0.0, 1.0)
        noise = np.random.default_rng(0).normal(0.0, 0.01, (max(sizes), len(grid)))
        spectra = (step + noise).astype(np.float32)
        rates: dict[str, Callable[[int], Sequence[float]]] = {
            engine: partial(lambda n, timer: (n / timer(spectra[:n], seconds=0.3, clock="thread_time"),), timer=timer)
            for engine, timer in timers.items()
        }
        found = _rounds(rounds, sizes, rates)
    return {engine: {n: spreads[0] for n, spreads in curve.items()} for engine, curve in found.items()}


def measure_agents(
    name: str, rounds: int, sizes: Sequence[int] = AGENTS, frames: int = 1600
) -> dict[str, dict[int, list[Spread]]]:
    """Return frames/s and processor time per frame, ms, by what brings the documents and by the number of agents."""
    return _rounds(rounds, sizes, {way: partial(_agents, call, frames, name) for way, call in ways().items()})


def _agents(call: Callable[..., Sequence[float]], frames: int, name: str, agents: int) -> Sequence[float]:
    return call(agents, frames, name)


def cost_of(frames: int) -> Cost:
    """Let an agent in a process of its own answer frames."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        script = Path(__file__).parent / "campaigns" / "frames.py"
        command = [sys.executable, str(script), "--frames", str(frames), "--counts-only", "--out", str(out)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {printed}")
        memory = next(line for line in printed.splitlines() if line.startswith("memory at"))
        sizes = {path.name: path.stat().st_size / 1e6 for path in out.iterdir() if path.is_file()}
    documents, journal = sizes.pop(DOCUMENTS), sizes.pop(JOURNAL)
    spent, highest = used.ru_utime + used.ru_stime, float(memory.split()[-2])
    return Cost(spent, highest, documents, journal, sum(sizes.values()))


def measure_frames(rounds: int, sizes: Sequence[int]) -> dict[int, list[Spread]]:
    """Return the spread of each part of :class:`Cost` by the number of frames."""
    return _rounds(rounds, sizes, {"frames": cost_of})["frames"]


def batch_rows(curves: Curves) -> list[Row]:
    sizes = next(iter(curves.values()))
    return [(str(n), *(str(curve[n]) for curve in curves.values())) for n in sizes]


def agent_rows(found: dict[str, dict[int, list[Spread]]]) -> list[Row]:
    rows: list[Row] = []
    for way, by_agents in found.items():
        one = by_agents[min(by_agents)][0].median
        for agents, (rate, processor) in by_agents.items():
            rows.append((way, str(agents), str(rate), f"{rate.median / one:.2f}", str(processor)))
    return rows


def frame_rows(found: dict[int, list[Spread]]) -> list[Row]:
    """Return a row for each number of frames, its growth since the one before and the time of a further frame."""
    rows: list[Row] = []
    before: tuple[int, list[Spread]] | None = None
    for frames, spreads in found.items():
        cells, further = [str(spreads[0]), *(number(spread.median) for spread in spreads[1:])], ""
        if before is not None:
            then = before[1]
            cells = [f"{c}, × {s.median / t.median:.3g}" for c, s, t in zip(cells, spreads, then, strict=True)]
            further = number(1e3 * (spreads[0].median - then[0].median) / (frames - before[0]))
        rows.append((f"{frames:,}".replace(",", " "), cells[0], further, *cells[1:]))
        before = frames, spreads
    return rows


def draw(
    path: Path, batches: Curves, agents: dict[str, dict[int, list[Spread]]], frames: dict[int, list[Spread]]
) -> None:
    """Draw what was measured."""
    figure = Figure(figsize=(7.5, 5.6), layout="constrained")
    axes: list[list[Axes]] = figure.subplots(2, 2).tolist()
    for (engine, curve), marker in zip(batches.items(), "osx^", strict=False):
        _line(axes[0][0], curve, engine, marker)
    axes[0][0].set(title="bare forward, one core", xlabel="batch / frames", ylabel="frames/s", ylim=(0, None))
    axes[0][0].set_xscale("log", base=2)
    axes[0][0].set_xticks(BATCHES[::2], list(map(str, BATCHES[::2])))
    if GPU in batches:
        axes[0][0].set(title="bare forward", yscale="log")
    for (way, by_agents), marker in zip(agents.items(), "os", strict=False):
        _line(axes[0][1], {n: spreads[0] for n, spreads in by_agents.items()}, way, marker)
    axes[0][1].set(title="all agents", xlabel="agents", ylabel="frames/s", ylim=(0, None), xticks=AGENTS)
    for k, label, marker in ((0, "processor time / s", "o"), (2, DOCUMENTS + " / MB", "s"), (3, "journal / MB", "x")):
        _line(axes[1][0], {n: spreads[k] for n, spreads in frames.items()}, label, marker)
    axes[1][0].set(title="session", xscale="log", yscale="log", xlabel="frames")
    _line(axes[1][1], {n: spreads[1] for n, spreads in frames.items()}, "", "o")
    axes[1][1].set(title="session", xscale="log", xlabel="frames", ylabel="memory / MB", ylim=(0, None))
    for one in (axes[0][0], axes[0][1], axes[1][0]):
        if one.lines:
            one.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _line(axes: Axes, curve: dict[int, Spread], label: str, marker: str) -> None:
    """Draw medians, with the range of the rounds as bars."""
    sizes, (median, low, high) = [*curve], np.array([*curve.values()]).reshape(-1, 3).T
    axes.errorbar(sizes, median, (median - low, high - median), marker=marker, ms=4, capsize=2, label=label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="co-k")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=("batch", "agents", "frames"))
    parser.add_argument("--long", action="store_true", help=f"answer {LONG_FRAMES} frames, too")
    parser.add_argument("--page", type=Path, help="page into which the tables are written")
    parser.add_argument("--figure", type=Path, help=f"file of the plot, for the page {FIGURE.name}; needs all three")
    options = parser.parse_args()
    wanted, rounds = options.only or ("batch", "agents", "frames"), options.rounds
    sizes = (*FRAMES, LONG_FRAMES) if options.long else FRAMES
    batches: Curves = {}
    agents: dict[str, dict[int, list[Spread]]] = {}
    frames: dict[int, list[Spread]] = {}

    def show(name: str, heads: Row, rows: list[Row], began: float) -> None:
        seconds = time.monotonic() - began
        conditions = f"{machine()}; rounds: {rounds}; load average {load()} at the end of {seconds:.0f} s"
        print(f"{conditions}\n\n{table(heads, rows)}\n", flush=True)
        if options.page is not None:
            fill(options.page, name, f"Model {options.model}; {conditions}.\n\n{markdown(heads, rows)}")

    if "batch" in wanted:
        began, batches = time.monotonic(), measure_batches(options.model, rounds)
        show("batch", ("batch", *(f"{engine}, frames/s" for engine in batches)), batch_rows(batches), began)
    if "agents" in wanted:
        began, agents = time.monotonic(), measure_agents(options.model, rounds)
        heads = ("documents", "agents", "frames/s", "of one agent", "processor time per frame, ms")
        show("agents", heads, agent_rows(agents), began)
    if "frames" in wanted:
        began, frames = time.monotonic(), measure_frames(rounds, sizes)
        heads = ("frames", "processor time, s", "of a further frame, ms", "memory, MB")
        heads += (f"{DOCUMENTS}, MB", f"{JOURNAL}, MB", "other files, MB")
        show("frames", heads, frame_rows(frames), began)
    if options.figure is not None:
        draw(options.figure, batches, agents, frames)


if __name__ == "__main__":
    main()
