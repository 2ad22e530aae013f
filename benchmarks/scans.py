"""Documents that the benchmarks of speed send: fly scans, step scans and pages; the process that publishes them."""

import multiprocessing as mp
import time
from typing import Any

import event_model
import numpy as np

from xas_agent.adapters.zmq import ZMQEndpoint, ZMQSink
from xas_agent.sim_beamline.beamline import BeamlineSettings, SimBeamline

Document = tuple[str, Any]

CONTEXT = mp.get_context("forkserver")
CONTEXT.set_forkserver_preload(["xas_agent.app.agent", "torch", "event_model", "bluesky.callbacks.zmq"])
"""So that the processes of a round begin at once."""
POINTS = 300
"""Number of Events of one step scan."""


def record_documents(frames: int) -> list[Document]:
    """Return documents of a fly scan of the simulated beamline, with its frames repeated to the given number."""
    documents: list[Document] = []
    settings = BeamlineSettings(frames=40, frame_period_s=0)
    SimBeamline(settings, [lambda name, doc: documents.append((name, dict(doc)))]).run()
    events = [doc for name, doc in documents if name == "event" and "It" in doc["data"]]
    run = event_model.compose_run(metadata={"element": "Co", "edge": "K"}, validate=False)
    descriptor = next(d for n, d in documents if n == "descriptor" and d["uid"] == events[0]["descriptor"])
    stream = run.compose_descriptor(name="primary", data_keys=descriptor["data_keys"], validate=False)
    scan: list[Document] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    for i in range(frames):
        source = events[i % len(events)]
        event = stream.compose_event(data=source["data"], timestamps=source["timestamps"], validate=False)
        scan.append(("event", event))
    return [*scan, ("stop", run.compose_stop())]


def in_pages(documents: list[Document], rows: int = 250) -> list[Document]:
    """Return documents with EventPages in place of the Events of their only stream."""
    events = [doc for name, doc in documents if name == "event"]
    parts = [events[k : k + rows] for k in range(0, len(events), rows)]
    pages = [("event_page", dict(event_model.pack_event_page(*part))) for part in parts]
    return [*documents[:2], *pages, documents[-1]]


def make_step_documents(events: int) -> list[Document]:
    """Return documents of a long step scan, with one Event per energy."""
    run = event_model.compose_run(metadata={"element": "Co", "edge": "K"}, validate=False)
    keys = {k: {"dtype": "number", "shape": [], "source": "benchmark"} for k in ("energy", "I0", "It")}
    stream = run.compose_descriptor(name="primary", data_keys=keys, validate=False)
    scan: list[Document] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    energies = np.concatenate([np.linspace(7640, 7820, POINTS // 2), np.linspace(7820, 7640, POINTS // 2)])
    for i in range(events):
        e = float(energies[i % POINTS])
        data = {"energy": e, "I0": 1e6, "It": 1e6 * np.exp(-0.5 - (np.arctan(e - 7720) / np.pi))}
        scan.append(("event", stream.compose_event(data=data, timestamps=dict.fromkeys(data, 0.0), validate=False)))
    return [*scan, ("stop", run.compose_stop())]


def _publish(documents: list[Document], pause_s: float, port: Any, go: Any, over: Any) -> None:
    sink = ZMQSink(ZMQEndpoint(address="zmq://127.0.0.1:0", bind=True))
    sink.connect()
    port.put(sink.address)
    sink.wait_for_subscriber()
    go.wait()
    for name, doc in documents:
        sink(name, doc)
        if pause_s and name == "event":
            time.sleep(pause_s)
    over.wait()
    sink.close()


class Publisher:
    """A process that publishes documents once ``go`` is set, and keeps those that wait until it is closed."""

    def __init__(self, documents: list[Document], pause_s: float, go: Any) -> None:
        port, self._over = CONTEXT.Queue(), CONTEXT.Event()
        self._process = CONTEXT.Process(target=_publish, args=(documents, pause_s, port, go, self._over), daemon=True)
        self._process.start()
        self.address: str = port.get()

    def close(self) -> None:
        self._over.set()
        self._process.join()
