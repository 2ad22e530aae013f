"""What the closed loop gains over the open loop in the stories that ship with the package.

    python benchmarks/stories.py [--seeds 5] [STORY ...]

Each story runs as a user runs it (``xas-agent run --config stories/NAME --seed SEED``), one after the other. What the
session says of both loops is printed per story and seed, and the gains of all seeds per story.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import xas_agent

STORIES = sorted(path.stem for path in (Path(xas_agent.__file__).parent / "configs" / "stories").glob("*.yaml"))
_RUN_TIMEOUT_S = 300.0
"""Longest time of one story, s."""


def gain_of(story: str, seed: int) -> dict[str, Any]:
    """Run a story; return what its summary says of the gain."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "xas_agent", "run", "--config", f"stories/{story}"]
        command += ["--seed", str(seed), "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_TIMEOUT_S)
        if done.returncode:
            raise SystemExit(f"{story}, seed {seed}: exit code {done.returncode}: {done.stderr[-2000:]}")
        return json.loads((out / "summary.json").read_text())["gain"]


def main() -> None:
    """Print the gains of the stories that the command line names, by default of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stories", nargs="*", metavar="STORY", default=[])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    for story in options.stories or STORIES:
        amounts: list[float] = []
        for seed in range(options.seeds):
            gain = gain_of(story, seed)
            amounts.append(gain["amount"])
            for loop in ("open loop", "closed loop", "gained"):
                print(f"{story} {seed} {loop:11} {gain[loop]}", flush=True)
        print(f"{story}: gains {', '.join(f'{amount:.3g}' for amount in amounts)}\n", flush=True)


if __name__ == "__main__":
    main()
