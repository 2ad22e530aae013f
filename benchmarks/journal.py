"""Measure what the journal costs: processor time per frame, latency, and size per frame; print a table.

    python benchmarks/journal.py [--frames 1500] [--repeats 3]

Whole spectra of 341 points come one by one, each after the answer to the one before, and together. Without a journal,
the agent only answers. What is written replaces earlier records, so that the file stays small.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from campaigns.recorded import Scans

from xas_agent import XASAgent, load_config
from xas_agent.app.journal import JOURNAL, Journal
from xas_agent.app.wiring import load_models
from xas_agent.models.runtime import configure_torch

CONFIG: dict[str, Any] = {
    "model": {"use": ["co-k"]},
    "rules": [
        {"name": "high", "trigger": {"kind": "threshold", "descriptor": "OS", "above": 9, "window_frames": 21}}
    ],
}


WEEK_S = 7 * 86_400


def written_kb() -> float:
    """Return how much this process has written so far, kB."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["wchar"]) / 1000


def measure(models: Any, documents: list[Any], journal: Journal | None, *, together: bool) -> tuple[float, ...]:
    """Return processor time per frame, ms, median time from document to answer, ms, and kB written per frame."""
    warm = len(documents) // 5
    latencies: list[float] = []
    began = before = 0.0

    def hear(name: str, doc: dict[str, Any]) -> None:
        if "latency_ms" in doc.get("data", {}):
            latencies.append(doc["data"]["latency_ms"])

    with XASAgent(load_config(CONFIG), models, journal=journal) as agent:
        agent.live = False
        agent.subscribe(hear)
        agent.start()
        for k, (name, doc) in enumerate(documents):
            if k == warm:
                agent.wait()
                began, before = time.process_time(), written_kb()
            agent(name, doc)
            if not together:
                agent.wait()
        agent.wait()
        used, written = time.process_time() - began, written_kb() - before
    frames = len(documents) - warm
    return 1e3 * used / frames, statistics.median(latencies[warm:]), written / frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    configure_torch(1)
    models = load_models(load_config(CONFIG))
    scans = Scans(0, sample_name="cell")
    documents = [*scans.begin(), *(scans.whole(1.8e9 + k) for k in range(options.frames))]
    columns = ("processor, ms/frame", "latency p50, ms", "written, kB/frame", "GB/week at 1/s", "file, MB")
    print(f"{'frames':12}{'journal':10}" + "".join(f"{name:>22}" for name in columns))
    for together in (False, True):
        found: dict[str, list[tuple[float, ...]]] = {"none": [], "flush": [], "fsync": []}
        for _ in range(options.repeats):
            for kind, values in found.items():
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / JOURNAL
                    journal = None if kind == "none" else Journal(path, fsync=kind == "fsync")
                    measured = measure(models, documents, journal, together=together)
                    values.append((*measured, path.stat().st_size / 1e6 if journal is not None else 0.0))
        for kind, values in found.items():
            used, latency, written, size = (min(column) for column in zip(*values, strict=True))
            figures = used, latency, written, written * WEEK_S / 1e6, size
            order = "together" if together else "one by one"
            print(f"{order:12}{kind:10}" + "".join(f"{figure:22.3f}" for figure in figures))


if __name__ == "__main__":
    main()
