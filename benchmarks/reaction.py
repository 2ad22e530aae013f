"""Time from a complete frame to the reaction of a RunEngine: in one process, and with control requests over ZMQ.

    python benchmarks/reaction.py [--runs 100]

Each run of a bluesky RunEngine measures three quick scans of the simulated cathode. A rule pauses the plan at the
first one, and the benchmark resumes it. The time is counted from the call of the agent with the Event of the scan to
the moment at which the plan has come to rest; model, alignment, decision and journal-less publication are in it. One
subscriber of the agent blocks from its first document on.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from bluesky import RunEngine
from bluesky.plans import count

from xas_agent import XASAgent
from xas_agent.adapters.runengine import RunEngineControl
from xas_agent.adapters.zmq import ControlServer, ZMQControl
from xas_agent.agent.types import Control, Reply
from xas_agent.sim_beamline.beamline import detectors

CONFIG = {
    "model": {"use": ["co-k"], "threads": 1},
    "rules": [
        {"name": "any", "trigger": {"kind": "threshold", "quantity": "OS", "above": 0.0}, "action": "pause"},
    ],
    "control": {"enabled": True, "allow": ["pause"]},
}


class Timed:
    """A RunEngine's control that notes when the plan has come to rest, and lets it go on."""

    def __init__(self, RE: RunEngine) -> None:
        self.control, self.rested = RunEngineControl(RE), list[float]()

    def obey(self, action: str, args: Mapping[str, Any]) -> Reply:
        """Carry out an action; resume a pause."""
        reply = self.control.request("", action, args, 5.0)
        if action == "pause" and reply.status == "acknowledged":
            self.rested.append(time.perf_counter())
            self.control.request("", "resume", {}, 5.0)
        return reply

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Carry out a request in this process."""
        return self.obey(action, args)

    def close(self) -> None:
        """Close the control."""
        self.control.close()


@contextmanager
def over_zmq(timed: Timed) -> Iterator[Control]:
    """Yield a control that reaches the RunEngine over a Unix socket."""
    with tempfile.TemporaryDirectory() as folder:
        server = ControlServer(f"ipc://{folder}/control", timed.obey)
        control = ZMQControl(server.address)
        try:
            yield control
        finally:
            control.close()
            server.close()


@contextmanager
def in_process(timed: Timed) -> Iterator[Control]:
    """Yield the RunEngine's own control."""
    yield timed


def main() -> None:
    """Print the quantiles of the reaction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    runs = parser.parse_args().runs
    for name, connected in (("in process", in_process), ("control over ZMQ", over_zmq)):
        RE = RunEngine()
        timed = Timed(RE)
        blocked = threading.Event()
        complete: list[float] = []
        with connected(timed) as control, XASAgent.from_config(CONFIG, control=control) as agent:
            agent.subscribe(lambda _name, _doc, blocked=blocked: blocked.wait())

            def noted(name: str, doc: dict[str, Any], complete: list[float] = complete) -> None:
                if name == "event" and doc["seq_num"] == 1:
                    complete.append(time.perf_counter())

            RE.subscribe(noted)
            RE.subscribe(agent)
            for _ in range(runs + 1):
                RE(count(detectors(), 3, delay=0.1, md={"element": "Co", "edge": "K"}))
                while agent.unanswered["documents"]:  # so that no run waits for the one before
                    time.sleep(0.01)
            blocked.set()
        # A plan that goes on repeats its scan, so that each pause belongs to the newest first scan before it.
        before = np.searchsorted(complete, timed.rested) - 1
        took_ms = (np.array(timed.rested) - np.array(complete)[before])[1:] * 1e3
        p50, p99, worst = np.percentile(took_ms, [50, 99, 100])
        print(
            f"{name}: {len(took_ms)} pauses, p50 {p50:.1f} ms, p99 {p99:.1f} ms, largest {worst:.1f} ms", flush=True
        )


if __name__ == "__main__":
    main()
