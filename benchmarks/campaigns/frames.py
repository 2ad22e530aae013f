"""Send a million frames to an agent; print a table of its memory and processor time as they go.

    python benchmarks/campaigns/frames.py [--frames 1000000] [--seed 0] [--limit 14400] [--out DIR] [--counts-only]

Every second frame belongs to one run that lasts as long as the campaign, the others to runs of ``RUN_FRAMES``
frames. A recorder counts the answers as in a session; with ``--out`` its files and journal are written too. The exit
code is 1 if a frame is not answered, if the memory at the end is ``MEMORY_MB`` above that at ``WARM_FRAMES`` frames
(of a shorter campaign it is not judged), or if the processor time per frame grows by more than ``TIME_GROWTH``.
"""

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from common import memory_mb, parser_of, report
from overload import CONFIG, VARIANTS, scan

from xas_agent import XASAgent, load_config
from xas_agent.app.journal import JOURNAL
from xas_agent.app.output.folder import OutputFolder
from xas_agent.app.output.recorder import Recorder
from xas_agent.app.wiring import load_models
from xas_agent.models.runtime import configure_torch

MEMORY_MB = 20.0
WARM_FRAMES = 10_000
TIME_GROWTH = 0.05
RUN_FRAMES = 250
TOGETHER = 500
"""Number of frames that are sent before the answers to all are awaited: queues that fill on a loaded machine, up to
their bounds, are no growth."""
BLOCKS = 20
"""Number of blocks of frames of which time and memory are shown."""
COMPARED = 3
"""Number of blocks at the start and at the end whose median times are compared."""


class Run:
    """A run to which frames can be added."""

    def __init__(self, agent: XASAgent, seed: int) -> None:
        self._agent = agent
        self._run, self._stream, self._data = scan(seed)
        agent("start", self._run.start_doc)
        agent("descriptor", self._stream.descriptor_doc)
        self.frames = 0

    def frame(self) -> None:
        values, now = self._data[self.frames % VARIANTS], time.time()
        event = self._stream.compose_event(
            data=values, timestamps=dict.fromkeys(values, now), time=now, validate=False
        )
        self._agent("event", event)
        self.frames += 1

    def stop(self) -> None:
        self._agent("stop", self._run.compose_stop())


def campaign(count: int, seed: int, limit_s: float, out: Path | None, counts_only: bool) -> dict[str, Any]:
    """Send ``count`` frames and return the figures."""
    config = load_config(CONFIG)
    block = max(1, (count - min(WARM_FRAMES, count // 2)) // BLOCKS)
    began, sent, blocks = time.monotonic(), 0, []
    with ExitStack() as stack:
        output = None if out is None else OutputFolder(out, {"source": "frames.py"})
        recorder = output.recorder if output is not None else Recorder()
        if output is not None:
            output.start(dict, None)
            stack.callback(output.finish)
        journal = None if output is None else output.journal
        agent = stack.enter_context(XASAgent(config, load_models(config), journal=journal, keep=0))
        agent.live = False
        agent.subscribe(recorder)
        if output is not None:
            agent.subscribe(output.documents)
        agent.start()
        long, short = Run(agent, seed), Run(agent, seed + 1)
        base, warm_at, spent = 0.0, count - BLOCKS * block, 0.0
        while sent < count and time.monotonic() - began < limit_s:
            if short.frames == RUN_FRAMES:
                short.stop()
                short = Run(agent, seed + 1)
            for run in (long, short):
                run.frame()
                sent += 1
                if sent % TOGETHER == 0:
                    agent.wait()
                if sent == warm_at or (sent > warm_at and (sent - warm_at) % block == 0):
                    agent.wait()
                    if sent > warm_at:
                        each_ms = 1e3 * (time.process_time() - spent) / block
                        blocks.append((sent, memory_mb(), each_ms))
                        print(f"{sent:9} frames {memory_mb():7.1f} MB {each_ms:7.3f} ms", file=sys.stderr, flush=True)
                    else:
                        base = memory_mb()
                    spent = time.process_time()
        long.stop()
        short.stop()
        agent.wait()
        end = memory_mb()
        times = [each_ms for _, _, each_ms in blocks]
        first, last = float(np.median(times[:COMPARED])), float(np.median(times[-COMPARED:]))
        written = 0 if out is None else (out / JOURNAL).stat().st_size / 1e6
    return {
        "frames": sent,
        "journal, MB": round(written, 1),
        "answered": recorder.frames,
        "set aside": dict(recorder.set_aside),
        f"memory at {warm_at} frames, highest since, at the end, MB": (
            f"{base:.1f} {max(memory for _, memory, _ in blocks):.1f} {end:.1f}"
        ),
        "processor time of a frame at the start, at the end, ms": f"{first:.3f} {last:.3f}",
        "time, s": round(time.monotonic() - began),
        "problems": {
            "frames not answered": sent - recorder.frames,
            "frames not sent within the time limit": count - sent,
            f"memory has grown by more than {MEMORY_MB:g} MB": warm_at >= WARM_FRAMES and end - base > MEMORY_MB,
            f"processor time has grown by more than {TIME_GROWTH:.0%}": not counts_only
            and last > (1 + TIME_GROWTH) * first,
        },
    }


def main() -> None:
    parser = parser_of(__doc__, 14_400.0, "time after which no more is sent, s")
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, help="new folder for the files of a session; not kept by default")
    parser.add_argument("--counts-only", action="store_true", help="do not judge the processor time")
    options = parser.parse_args()
    configure_torch(1)
    figures = campaign(options.frames, options.seed, options.limit, options.out, options.counts_only)
    report(figures, figures.pop("problems"))


if __name__ == "__main__":
    main()
