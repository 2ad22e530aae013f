"""Measure the agent's speed relative to its parts, in rounds that take turns; print a table with the spread.

    python benchmarks/run.py [--model co-k] [--rounds 5] [--only THEME …] [--page FILE] [--out benchmarks.json]

The two sides of every ratio are measured in the same round with the same number of threads, in this process, which is
set up as the agent's command is, or in processes that it starts. The table has the median and range of the rounds,
the bar that a figure is to meet, and whether it does. ``--page`` also writes the table into a page of the
documentation.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from device import report
from figures import Bar, Figure, fill, load, machine, markdown, rows_of, table
from forward import networks
from own_time import measure_alignment, measure_own_time
from startup import StartUp
from through_zmq import measure_callback, measure_documents, measure_latency, measure_rate

from xas_agent.models.runtime import configure_torch, default_threads

HEADS = ("figure", "median", "range", "bar", "")
FIGURES = {
    "forward": (
        Figure("forward_one_core_ms", "bare forward of one frame on one core", "ms"),
        Figure("former_of_forward_one_core", "bare forward of one frame of 0.1.0, over it", "×", Bar(2, True)),
        Figure("forward_frames_per_s", "bare batched forward", "frames/s"),
        Figure("former_frames_per_s", "bare batched forward of 0.1.0", "frames/s"),
        Figure("forward_of_former_frames_per_s", "bare batched forward, over that of 0.1.0", "×", Bar(2, True)),
        Figure("answers_difference", "largest difference of an answer to 0.1.0's network", "", Bar(1e-4)),
    ),
    "zmq": (
        Figure("zmq_frames_per_s", "ZMQ in → ZMQ out", "frames/s"),
        Figure("zmq_of_forward", "ZMQ in → ZMQ out, over the bare batched forward", "×", Bar(0.75, True)),
        Figure("zmq_of_former", "ZMQ in → ZMQ out, over the bare batched forward of 0.1.0", "×", Bar(0.9, True)),
    ),
    "latency": (
        Figure("forward_paced_p50_ms", "bare forward at the frame period, p50", "ms"),
        Figure("latency_p50_ms", "latency p50, received → published", "ms"),
        Figure("latency_p50_of_allowed", "latency p50, over 1.2 × bare forward at this period + 0.5 ms", "×", Bar(1)),
        Figure("latency_p99_of_p50", "latency p99, over p50", "×", Bar(3)),
    ),
    "callback": (Figure("callback_p99_ms", "callback, time taken from the RunEngine, p99", "ms", Bar(0.1)),),
    "documents": (
        Figure("documents_per_s", "Events/s of step scans taken in and answered", ""),
        Figure(
            "documents_of_dispatcher", "Events/s, over RemoteDispatcher, which only calls back", "×", Bar(1.5, True)
        ),
    ),
    "own-time": (
        Figure("own_from_events_ms", "agent's own time per frame, whole-spectrum Events", "ms", Bar(0.15)),
        Figure("own_from_pages_ms", "agent's own time per frame, pages of 250", "ms", Bar(0.03)),
        Figure("own_per_step_event_us", "agent's own time per Event of a step scan", "µs", Bar(30)),
        Figure("agent_processor_ms", "processor time per frame, Events in → Events out", "ms"),
        Figure("forward_of_agent_processor", "share of the forward in it", ""),
    ),
    "alignment": (
        Figure("alignment_alone_us", "alignment of a spectrum alone", "µs"),
        Figure("alignment_batched_us", "alignment of a spectrum in a batch of 256", "µs"),
    ),
    "start-up": (
        Figure("infer_of_torch", "infer FILE --element Co, whole, over import torch", "×", Bar(1.3)),
        Figure("infer_of_torch_processor", "likewise, processor time", "×"),
        Figure("infer_any_of_torch", "infer FILE, all models installed, over import torch", "×", Bar(1.3)),
        Figure("run_of_torch", "run until it reads, over import torch", "×", Bar(1.3)),
        Figure("run_of_torch_processor", "likewise, processor time", "×"),
        Figure("help_s", "xas-agent --help", "s", Bar(0.5)),
        Figure("memory_mb", "memory of an agent with all models, after 300 frames", "MB", Bar(600)),
    ),
}
"""Figures by theme, in the order of the table; other keys of the results are in the JSON file alone."""
STARTUP_ROUNDS = 3
Measure = Callable[[], dict[str, float]]


def measure(name: str, frames: int, rounds: int, themes: Sequence[str]) -> dict[str, list[float]]:
    """Return the figures of each round by their key; the themes take turns within a round."""
    found: dict[str, list[float]] = defaultdict(list)

    def add(figures: Mapping[str, float]) -> None:
        for key, value in figures.items():
            found[key].append(value)

    configure_torch(default_threads())  # as the agent's command does, whose memory stays with it
    with ExitStack() as stack:
        both = stack.enter_context(networks(name))
        start = StartUp(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        ways: dict[str, Measure] = {
            "forward": both.measure,
            "zmq": lambda: measure_rate(both, 2 * frames),
            "latency": lambda: measure_latency(both),
            "callback": lambda: measure_callback(both),
            "documents": lambda: measure_documents(both),
            "own-time": lambda: measure_own_time(both, frames),
            "alignment": lambda: measure_alignment(both),
            "start-up": start.measure,
        }
        for k in range(rounds):
            for theme in themes:
                if theme == "own-time" and k == 0:
                    measure_own_time(both, 100)  # the first is slower
                if theme == "start-up" and k == 0:
                    start.measure()  # fills the caches
                if theme != "start-up" or k < STARTUP_ROUNDS:
                    add(ways[theme]())
            print(f"round {k + 1} of {rounds}", file=sys.stderr, flush=True)
        if "start-up" in themes:
            add(start.memory())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="co-k")
    parser.add_argument("--frames", type=int, default=1000, help="per measurement of the own time; twice for ZMQ")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=[*FIGURES], default=[*FIGURES], help="themes to measure")
    parser.add_argument("--page", type=Path, help="page into which the table is written")
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"))
    options = parser.parse_args()
    began, load_before = time.monotonic(), load()
    found = measure(options.model, options.frames, options.rounds, options.only)
    rows = rows_of([figure for theme in options.only for figure in FIGURES[theme]], found)
    conditions = (
        f"{options.model}; rounds: {options.rounds}, of start-up {min(STARTUP_ROUNDS, options.rounds)}; {machine()}, "
        f"threads of the network: {torch.get_num_threads()}; load average {load_before} before and {load()} at the "
        f"end of {(time.monotonic() - began) / 60:.1f} min"
    )
    print(f"{conditions}\n\n{table(HEADS, rows)}")
    if options.page is not None:
        fill(options.page, "ratios", f"Model {conditions}.\n\n{markdown(HEADS, rows)}")
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    if torch.cuda.is_available():
        print(report(options.model, "cuda"))


if __name__ == "__main__":
    main()
