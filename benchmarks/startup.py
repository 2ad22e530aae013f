"""How soon the commands begin, relative to ``import torch``, and the memory of an agent with all models.

The commands alternate with ``import torch``, because the machine drifts. Wall time is measured beside processor time,
which other work on the machine affects less.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scans import record_documents

from xas_agent.adapters.codecs import to_json_line

AGENT = (sys.executable, "-m", "xas_agent")
_ALL_MODELS = r"""
import json, re, sys
from xas_agent.app.agent import XASAgent
from xas_agent.app.wiring import load_models
from xas_agent.app.config import load_config
models = load_models(load_config(None))
with XASAgent(load_config(None), models, keep=0) as agent:
    agent.live = False
    for line in open(sys.argv[1]):
        agent(*json.loads(line))
    agent.wait(300)
kilobytes = re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]
print(len(models), int(kilobytes) * 1024 / 1e6)
"""
"""Prints the number of models and the largest memory, MB; what getrusage gives is at least the parent's."""


def time_until(command: list[str], word: str | None = None) -> tuple[float, float]:
    """Return wall and processor time, s, of a command, or the time until it logs a line with ``word``."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=_environment()
    )
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


def _environment() -> dict[str, str]:
    """An installed package has its bytecode, so that it must be written here too."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _processor_s(pid: int) -> float:
    """Processor time of a process that still runs, s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class StartUp:
    """The commands and the files that they read, in a folder.

    Parameters
    ----------
    folder : existing folder to which they write
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        documents = record_documents(300)
        self._recording, self._file = folder / "scan.jsonl", folder / "scan.dat"
        self._recording.write_bytes(b"".join(map(to_json_line, documents)))
        data = next(doc["data"] for kind, doc in documents if kind == "event")
        np.savetxt(self._file, np.column_stack([data["energy"], np.log(data["I0"] / data["It"])]), header="energy mu")

    def measure(self) -> dict[str, float]:
        """Return the times of a round, s, and their ratios to those of ``import torch``."""
        self._number += 1
        out = self._folder / f"out{self._number}"
        infer = [*AGENT, "infer", str(self._file)]
        cases: dict[str, tuple[list[str], str | None]] = {
            "help": ([*AGENT, "--help"], None),
            "infer": ([*infer, "--element", "Co"], None),
            "infer_any": (infer, None),
            "run": ([*AGENT, "run", "--source", str(self._recording), "--out", str(out)], "reading"),
        }
        wall, spent = time_until([sys.executable, "-c", "import torch"])
        figures = {"import_torch_s": wall, "import_torch_processor_s": spent}
        for case, (command, word) in cases.items():
            seconds = time_until(command, word)
            figures[f"{case}_s"] = seconds[0]
            figures |= {f"{case}_of_torch": seconds[0] / wall, f"{case}_of_torch_processor": seconds[1] / spent}
        return figures

    def memory(self) -> dict[str, float]:
        """Return the largest memory of an agent with all models, MB, after 300 frames."""
        command = [sys.executable, "-c", _ALL_MODELS, str(self._recording)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        models, peak = done.stdout.split()[-2:]
        return {"models": float(models), "memory_mb": float(peak)}
