"""Measure how soon the commands begin, relative to ``import torch``, and the memory of an agent with all models.

    python benchmarks/startup.py [--rounds 5]

The commands alternate with ``import torch``, because the machine drifts; each figure is a median over the rounds, and
each ratio the median of the ratios within a round. Wall time is shown beside processor time, which other work on the
machine affects less.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from run import record_documents

from xas_agent.adapters.codecs import to_json_line
from xas_agent.models import card

AGENT = (sys.executable, "-m", "xas_agent")
_ALL_MODELS = """
import json, resource, sys
from xas_agent.app.agent import XASAgent
from xas_agent.app.wiring import load_models
from xas_agent.app.config import load_config
models = load_models(load_config(None))
with XASAgent(load_config(None), models, keep=0) as agent:
    agent.live = False
    for line in open(sys.argv[1]):
        agent(*json.loads(line))
    agent.wait(300)
print(len(models), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def time_until(command: list[str], word: str | None = None) -> tuple[float, float]:
    """Return wall and processor time, s, of a command, or the time until it logs a line with ``word``."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    wall, spent = None, 0.0
    for line in process.stderr:
        if word is not None and word in line and wall is None:
            wall, spent = time.perf_counter() - began, _processor_s(process.pid)
    if process.wait() != 0:
        raise RuntimeError(f"{' '.join(command)} failed")
    if wall is not None:
        return wall, spent
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, spent


def _processor_s(pid: int) -> float:
    """Processor time of a process that still runs, s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = record_documents(300)
        recording, file = folder / "scan.jsonl", folder / "scan.dat"
        recording.write_bytes(b"".join(map(to_json_line, documents)))
        data = next(doc["data"] for kind, doc in documents if kind == "event")
        np.savetxt(file, np.column_stack([data["energy"], np.log(data["I0"] / data["It"])]), header="energy mu")
        cases: dict[str, tuple[list[str], str | None]] = {
            "import torch": ([sys.executable, "-c", "import torch"], None),
            "xas-agent --help": ([*AGENT, "--help"], None),
            "infer FILE --element Co, whole": ([*AGENT, "infer", str(file), "--element", "Co"], None),
            "infer FILE, whole": ([*AGENT, "infer", str(file)], None),
            "run, until it reads": ([*AGENT, "run", "--source", str(recording), "--out", ""], "reading"),
        }
        times: dict[str, list[tuple[float, float]]] = {case: [] for case in cases}
        for k in range(options.rounds + 1):
            for case, (command, word) in cases.items():
                command = [part or str(folder / f"out{k}") for part in command]
                found = time_until(command, word)
                times[case] += [found] if k else []  # the first fill the caches
        columns = {case: np.array(found) for case, found in times.items()}
        for case, found in columns.items():
            wall, spent = np.median(found, axis=0)
            ratios = np.median(found / columns["import torch"], axis=0)
            of_torch = f"{wall:6.2f} s, {ratios[0]:5.2f} of import torch"
            print(f"{case:32} {of_torch}; processor {spent:6.2f} s, {ratios[1]:5.2f}")
        done = subprocess.run(
            [sys.executable, "-c", _ALL_MODELS, str(recording)], capture_output=True, text=True, check=True
        )
        number, peak = done.stdout.split()[-2:]
        installed = len(card.installed())
        print(f"memory of an agent with {number} of {installed} models, after 300 frames: {float(peak):.0f} MB")


if __name__ == "__main__":
    main()
