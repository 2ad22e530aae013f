"""Between bluesky's own Publisher, Proxy and RemoteDispatcher, each in a process of its own."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import event_model
import pytest
from forked import command
from valid import check_document

PROXY = """
from bluesky.callbacks.zmq import Proxy
proxy = Proxy("127.0.0.1", "127.0.0.1")
print(proxy.in_port, proxy.out_port, flush=True)
proxy.start()
"""

# Starts a run that nobody reads, again and again until it may begin; then measures: whole spectra in one run, or a
# run of single points per spectrum.
PUBLISHER = """
import functools, sys, threading, time, event_model, msgpack, msgpack_numpy, numpy as np
from importlib.resources import files
from bluesky.callbacks.zmq import Publisher
address, form, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
publish = Publisher(address, serializer=functools.partial(
    msgpack.packb, use_bin_type=True, default=msgpack_numpy.encode))
begin = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), begin.set()), daemon=True).start()
while not begin.wait(0.02):
    publish("start", {"uid": "knock", "time": time.time(), "plan_name": "dark"})
with files("xas_agent.sim_beamline").joinpath("cathode_co_k.npz").open("rb") as f, np.load(f) as z:
    energy, mu, offset = z["energy"], z["mu"].astype(float), float(z["feff_offset_ev"])
e = 7709 + np.concatenate([np.arange(-60, -20, 4.0), np.arange(-20, 40, 0.7), np.arange(40, 105, 2.0)])
spectra = [0.3 + np.interp(e + offset, energy, row) for row in mu]
def run(rows):
    made = event_model.compose_run(metadata={"plan_name": "xanes", "sample_name": "LCO"})
    publish("start", made.start_doc)
    about = {"source": "probe", "dtype": "number" if form == "step" else "array",
             "shape": [] if form == "step" else [len(e)]}
    described = made.compose_descriptor(name="primary", data_keys=dict.fromkeys(("energy", "I0", "It"), about))
    publish("descriptor", described.descriptor_doc)
    for row in rows:
        i0 = np.full(len(e), 1e6)
        columns = {"energy": e, "I0": i0, "It": i0 * np.exp(-row)}
        points = [{k: float(v[i]) for k, v in columns.items()} for i in range(len(e))]
        for data in points if form == "step" else [columns]:
            publish("event", described.compose_event(data=data, timestamps=dict.fromkeys(data, time.time())))
    publish("stop", made.compose_stop())
rows = [spectra[i % len(spectra)] for i in range(count)]
for part in [[row] for row in rows] if form == "step" else [rows]:
    run(part)
sys.stdin.readline()
"""

DISPATCHER = """
import functools, json, sys, event_model, msgpack, msgpack_numpy
from bluesky.callbacks.zmq import RemoteDispatcher
d = RemoteDispatcher(sys.argv[1], deserializer=functools.partial(
    msgpack.unpackb, raw=False, object_hook=msgpack_numpy.decode))
d.subscribe(lambda name, doc: print(json.dumps([name, doc], cls=event_model.NumpyEncoder), flush=True))
d.start()
"""


class Process:
    """A process whose lines are read as they come."""

    def __init__(self, *line: object) -> None:
        self._process = subprocess.Popen(
            list(map(str, line)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def line(self, timeout: float = 60.0) -> str:
        return self._lines.get(timeout=timeout)

    def until(self, text: str) -> str:
        """The first line that holds ``text``."""
        while text not in (line := self.line()):
            pass
        return line

    def say(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def ended(self) -> int:
        return self._process.wait(60)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._reader.join()


@contextmanager
def running(*line: object) -> Iterator[Process]:
    process = Process(*line)
    try:
        yield process
    finally:
        process.close()


@pytest.mark.parametrize(("form", "frames"), [("array", 24), pytest.param("step", 4, marks=pytest.mark.slow)])
def test_every_frame_is_answered_through_a_proxy(form, frames, tmp_path):
    with running(sys.executable, "-c", PROXY) as proxy:
        inward, outward = proxy.line().split()
        with (
            running(sys.executable, "-c", DISPATCHER, outward) as dispatcher,
            running(sys.executable, "-c", PUBLISHER, inward, form, frames) as publisher,
        ):
            dispatcher.until("knock")
            agent_options = ["--element", "Co", "--edge", "K", "--frames", frames, "--out", tmp_path / "out"]
            ports = ["--source", _zmq(outward), "--publish", _zmq(inward)]
            with running(*command("run", *ports, *agent_options)) as agent:
                agent.until("knock")  # so the proxy has passed its subscription on
                publisher.say()
                assert agent.ended() == 0
                received = heard(dispatcher, frames if form == "step" else 1)
    for name, doc in received:
        check_document(name, doc)
    own = [pair for pair in received if pair[0] == "start" and pair[1].get("xas_agent")]
    foreign = {doc["uid"] for name, doc in received if name == "start" and not doc.get("xas_agent")}
    assert {doc["parent_uid"] for _, doc in own} == foreign
    streams = {doc["uid"]: doc["name"] for name, doc in received if name == "descriptor"}
    answered = [
        event["data"]
        for name, doc in received
        for event in (event_model.unpack_event_page(doc) if name == "event_page" else [doc])
        if name in ("event", "event_page") and streams[doc["descriptor"]] == "descriptors"
    ]
    assert len({data["frame_uid"] for data in answered}) == len(answered) == frames
    assert all(2.8 < data["OS_mean"] < 4.2 for data in answered)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["frames"], summary["frames_set_aside"]) == (frames, {})


def _zmq(address: str) -> str:
    return address.replace("tcp://", "zmq://")


def heard(dispatcher: Process, runs: int) -> list[tuple[str, dict[str, Any]]]:
    """All that came through, until the agent has ended this many runs."""
    found: list[tuple[str, dict[str, Any]]] = []
    own: set[str] = set()
    while runs:
        line = dispatcher.line()
        name, doc = json.loads(line)
        if doc.get("uid") == "knock":
            continue
        found.append((name, doc))
        if name == "start" and doc.get("xas_agent"):
            own.add(doc["uid"])
        runs -= name == "stop" and doc["run_start"] in own
    return found
