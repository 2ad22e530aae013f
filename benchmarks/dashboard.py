"""Measure what the dashboard costs an agent: processor time per frame with ten readers and without; print a table.

    python benchmarks/dashboard.py [--frames 200] [--blocks 6] [--rate 20] [--readers 10]

Whole spectra of 341 points come at a steady rate. In one session, blocks of frames with readers, who follow its
events as a browser does, alternate with blocks without. The last line says what the spectra as measured cost
(``serving.measured``): there, each frame follows the answer to the one before.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from campaigns.recorded import Scans

from xas_agent import XASAgent, load_config
from xas_agent.app.dashboard import Dashboard
from xas_agent.app.operator import OperatorServer
from xas_agent.app.output.folder import OutputFolder
from xas_agent.app.wiring import load_models
from xas_agent.models.runtime import configure_torch

CONFIG: dict[str, Any] = {
    "model": {"use": ["co-k"]},
    "rules": [
        {"name": "high", "trigger": {"kind": "threshold", "descriptor": "OS", "above": 9, "window_frames": 21}}
    ],
}
READER = """
import http.client, selectors, sys
port, path, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
waiting = selectors.DefaultSelector()
links = []
for _ in range(count):
    link = http.client.HTTPConnection("127.0.0.1", port)
    link.request("GET", path)
    assert link.getresponse().status == 200
    links.append(link)
    waiting.register(link.sock, selectors.EVENT_READ)
print("there", flush=True)
received = 0
while True:
    for key, _ in waiting.select():
        received += len(key.fileobj.recv(65536))
"""


def processor_s(pid: int) -> float:
    """Return the processor time of a process so far, s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def readers(port: int, session: str, count: int) -> Iterator[None]:
    """Let a process follow the events of a session through ``count`` connections."""
    if not count:
        yield
        return
    line = [sys.executable, "-c", READER, str(port), f"/api/sessions/{session}/events", str(count)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "there\n"
        yield
    finally:
        process.kill()
        process.communicate()


def block(agent: XASAgent, documents: list[Any], rate: float) -> float:
    """Feed frames at a rate, Hz; return the processor time of this process per frame, ms."""
    agent.wait()
    began, due = time.process_time(), time.monotonic()
    for document in documents:
        agent(*document)
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))
    agent.wait()
    return 1e3 * (time.process_time() - began) / len(documents)


def watched(models: Any, options: argparse.Namespace) -> None:
    """Print the times of the agent and of the dashboard, with readers and without."""
    scans = Scans(0, sample_name="cell")
    number = iter(range(10**9))
    with tempfile.TemporaryDirectory() as folder:
        output = OutputFolder(Path(folder) / "session")
        with XASAgent(load_config(CONFIG), models) as agent:
            agent.live = False
            agent.subscribe(output.recorder)
            agent.subscribe(output.documents)
            identity = {"source": "benchmark", "out": str(output.folder.resolve()), "sample": "cell"}
            server = OperatorServer(
                agent, lambda: identity, lambda: {"latency_ms": output.recorder.latency_ms()}, None
            )
            server.start()
            dashboard = Dashboard(output.folder, "127.0.0.1:0")
            port = int(dashboard.lines[0].partition("/?")[0].rpartition(":")[2])
            for document in scans.begin():
                agent(*document)

            def frames() -> list[Any]:
                return [scans.whole(1.8e9 + next(number)) for _ in range(options.frames)]

            with readers(port, "session", 1):  # the dashboard listens
                block(agent, frames(), options.rate)  # warm
            found: dict[int, list[tuple[float, float]]] = {0: [], options.readers: []}
            for k in range(options.blocks):
                for count in sorted(found, reverse=bool(k % 2)):
                    with readers(port, "session", count):
                        before = processor_s(dashboard.pid)
                        used = block(agent, frames(), options.rate)
                        shown = 1e3 * (processor_s(dashboard.pid) - before) / options.frames
                    found[count].append((used, shown))
            dashboard.close()
            server.close()
        output.release()
    print(f"{'readers':>8}{'agent, ms/frame':>18}{'dashboard, ms/frame':>22}")
    medians = {}
    for count, values in found.items():
        medians[count], shown = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{count:8}{medians[count]:18.3f}{shown:22.3f}")
    pairs = [b[0] / a[0] for a, b in zip(*found.values(), strict=True)]
    print(f"ratio of the agent's times: {statistics.median(pairs):.3f} (median of {len(pairs)} pairs of blocks)")


def published(models: Any, options: argparse.Namespace) -> None:
    """Print the time per frame with and without the stream ``measured``, written to a file of documents."""
    scans = Scans(0, sample_name="cell")
    documents = [*scans.begin(), *(scans.whole(1.8e9 + k) for k in range(4 * options.frames))]
    found: dict[bool, list[float]] = {False: [], True: []}
    for k in range(options.blocks):
        for measured in sorted(found, reverse=bool(k % 2)):
            with tempfile.TemporaryDirectory() as folder:
                output = OutputFolder(Path(folder) / "session")
                with XASAgent(load_config({**CONFIG, "serving": {"measured": measured}}), models) as agent:
                    agent.live = False
                    agent.subscribe(output.documents)
                    warm = len(documents) // 5
                    began = 0.0
                    for n, document in enumerate(documents):
                        began = time.process_time() if n == warm else began
                        agent(*document)
                        agent.wait()
                    found[measured].append(1e3 * (time.process_time() - began) / (len(documents) - warm))
                output.release()
    without, with_it = (min(values) for values in found.values())
    print(f"spectra as measured: {without:.3f} ms/frame without, {with_it:.3f} with, {with_it - without:+.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--readers", type=int, default=10)
    options = parser.parse_args()
    configure_torch(1)
    models = load_models(load_config(CONFIG))
    watched(models, options)
    published(models, options)


if __name__ == "__main__":
    main()
