"""Time from a complete frame to the reaction of a RunEngine: in one process, and over ZMQ.

    python benchmarks/reaction.py [--runs 100] [--only all-over-zmq]

``in-process``: the RunEngine calls the agent, and is its control. ``control-over-zmq``: the requests travel over a
Unix socket. ``all-over-zmq``: the documents travel, too, from bluesky's Publisher over its Proxy to an agent, each in
a process of its own.

Each run of a bluesky RunEngine measures three quick scans of the simulated cathode. A rule pauses the plan at the
first one, and the benchmark resumes it. The time is counted from the emission of the scan's Event to the moment at
which the plan has come to rest; model, alignment, decision and journal-less publication are in it. One subscriber of
the agent blocks from its first document on.
"""

import argparse
import functools
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
from bluesky import RunEngine
from bluesky.callbacks.zmq import Publisher
from bluesky.plans import count

from xas_agent import XASAgent
from xas_agent.adapters.runengine import RunEngineControl
from xas_agent.adapters.zmq import ControlServer, ZMQControl, ZMQEndpoint, ZMQSource
from xas_agent.agent.types import Control, Reply
from xas_agent.sim_beamline.beamline import detectors

CONFIG = {
    "model": {"use": ["co-k"], "threads": 1},
    "rules": [
        {"name": "any", "trigger": {"kind": "threshold", "quantity": "OS", "above": 0.0}, "action": "pause"},
    ],
    "control": {"enabled": True, "allow": ["pause"]},
}
PROXY = """
from bluesky.callbacks.zmq import Proxy
proxy = Proxy("127.0.0.1", "127.0.0.1")
print(proxy.in_port, proxy.out_port, flush=True)
proxy.start()
"""
_SETTLE_S = 0.3
"""Time after a run in which another process has served its documents, s."""
Subscriber = Callable[[str, dict[str, Any]], None]


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
def blocked(agent: XASAgent) -> Iterator[None]:
    """Let a subscriber of an agent block from its first document on."""
    free = threading.Event()
    agent.subscribe(lambda _name, _doc: bool(free.wait()))
    try:
        yield
    finally:
        free.set()


@contextmanager
def in_process(timed: Timed) -> Iterator[tuple[Subscriber, Callable[[], None]]]:
    """Yield an agent in this process, whose control is the RunEngine's own, and what waits until it is idle."""
    with with_agent(timed) as connected:
        yield connected


@contextmanager
def control_over_zmq(timed: Timed) -> Iterator[tuple[Subscriber, Callable[[], None]]]:
    """Yield an agent in this process whose requests reach the RunEngine over a Unix socket."""
    with served(timed) as address, with_agent(ZMQControl(address)) as connected:
        yield connected


@contextmanager
def all_over_zmq(timed: Timed) -> Iterator[tuple[Subscriber, Callable[[], None]]]:
    """Yield bluesky's Publisher, behind whose Proxy an agent of another process listens."""
    with served(timed) as control, child("-c", PROXY) as (_, ports):
        in_port, out_port = ports.split()
        with child(__file__, "--agent", out_port.replace("tcp:", "zmq:"), control):
            pack = functools.partial(msgpack.packb, use_bin_type=True, default=msgpack_numpy.encode)
            publisher = Publisher(in_port.removeprefix("tcp://"), serializer=pack)
            try:
                yield publisher, lambda: time.sleep(_SETTLE_S)
            finally:
                publisher.close()


@contextmanager
def with_agent(control: Control) -> Iterator[tuple[Subscriber, Callable[[], None]]]:
    """Yield an agent in this process, and what waits until it is idle."""

    def settle() -> None:
        while agent.unanswered["documents"]:  # so that no run waits for the one before
            time.sleep(0.01)

    with XASAgent.from_config(CONFIG, control=control) as agent, blocked(agent):
        yield agent, settle


@contextmanager
def served(timed: Timed) -> Iterator[str]:
    """Yield the address of a Unix socket at which the RunEngine is controlled."""
    with tempfile.TemporaryDirectory() as folder:
        server = ControlServer(f"ipc://{folder}/control", timed.obey)
        try:
            yield server.address
        finally:
            server.close()


@contextmanager
def child(*args: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a Python process until the end; yield it and the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.wait()


def listen(documents: str, control: str) -> None:
    """Run an agent between a source of documents and a control, until this process is killed."""
    source = ZMQSource(ZMQEndpoint(address=documents))
    source.connect()
    with XASAgent.from_config(CONFIG, control=ZMQControl(control)) as agent, blocked(agent):
        print("ready", flush=True)
        for name, doc in source:
            agent(name, doc)


CASES = {"in-process": in_process, "control-over-zmq": control_over_zmq, "all-over-zmq": all_over_zmq}


def main() -> None:
    """Print the quantiles of the reaction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--agent", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.agent:
        listen(*options.agent)
    for name in [options.only] if options.only else CASES:
        took_ms = measure(name, options.runs)
        p50, p99, worst = np.percentile(took_ms, [50, 99, 100])
        came = f"{len(took_ms)} of {options.runs} pauses"
        print(f"{name}: {came}, p50 {p50:.1f} ms, p99 {p99:.1f} ms, largest {worst:.1f} ms", flush=True)


def measure(name: str, runs: int) -> np.ndarray:
    """Return the times of a case, ms, without that of a first run."""
    RE = RunEngine()
    timed = Timed(RE)
    complete: list[float] = []

    def noted(name: str, doc: dict[str, Any]) -> None:
        if name == "event" and doc["seq_num"] == 1:
            complete.append(time.perf_counter())

    with CASES[name](timed) as (subscriber, settle):
        RE.subscribe(noted)
        RE.subscribe(subscriber)
        settle()  # a publisher loses what it sends before it is connected
        for _ in range(runs + 1):
            RE(count(detectors(), 3, delay=0.1, md={"element": "Co", "edge": "K"}))
            settle()
    timed.close()
    # A plan that goes on repeats its scan, so that each pause belongs to the newest first scan before it.
    before = np.searchsorted(complete, timed.rested) - 1
    return (np.array(timed.rested) - np.array(complete)[before])[1:] * 1e3


if __name__ == "__main__":
    main()
