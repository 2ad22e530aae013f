"""Several agents at a time, each on a ZMQ stream of its own or all on one NATS stream: rate and processor time."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scans import CONTEXT, Document, Publisher, record_documents

from xas_agent.adapters.zmq import ZMQEndpoint, ZMQSource
from xas_agent.app.agent import XASAgent
from xas_agent.models.runtime import configure_torch

RUN_FRAMES = 50
"""Number of frames of a run on the NATS stream."""
PARTITIONS = 16
_ACKNOWLEDGED = 100
"""Number of documents after which an agent acknowledges those that it read."""
_SETTLE_S = 120.0
"""Time after which agents that share the cores with others count as stuck, s."""


class Rate(NamedTuple):
    """What agents did together."""

    frames_per_s: float
    """From the first document that is sent to the last answer."""
    processor_ms: float
    """Processor time of all agents per frame."""


class _Shared:
    """What the processes of a measurement share.

    Parameters
    ----------
    agents : number of agents
    """

    def __init__(self, agents: int) -> None:
        self.answered = CONTEXT.Value("q", 0)
        self.last_at = CONTEXT.Value("d", 0.0)
        """``time.monotonic()`` of the last answer."""
        self.spent_s = CONTEXT.Value("d", 0.0)
        self.holding = CONTEXT.Array("q", agents)
        """Number of partitions that each agent holds."""
        self.go, self.over = CONTEXT.Event(), CONTEXT.Event()

    def count(self, name: str, doc: Any) -> None:
        """Count the answers in a document of an agent."""
        if name in ("event", "event_page") and "latency_ms" in doc["data"]:
            with self.answered.get_lock():
                self.answered.value += np.size(doc["data"]["latency_ms"])
                self.last_at.value = time.monotonic()


def _work(kind: str, address: str, number: int, model: str, shared: _Shared) -> None:
    """Answer the documents of a source in a process of its own, until all agents have."""
    configure_torch(1)
    source: Any = _nats_source(address) if kind == "NATS" else ZMQSource(ZMQEndpoint(address=address))
    with XASAgent.from_config({"model": {"use": [model]}}) as agent:
        agent.load_models()
        agent.live = False  # so that no frame is left out under overload
        agent.subscribe(shared.count, pages=True)
        source.connect()
        threading.Thread(target=_follow, args=(source, number, shared), daemon=True).start()
        shared.go.wait()
        began, place = time.process_time(), dict[str, int]()
        for read, document in enumerate(source, 1):
            agent(*document)
            if kind == "NATS":
                place |= source.position  # that of the document's partition
                if read % _ACKNOWLEDGED == 0:
                    source.acknowledge(place, ())
        agent.wait(300)
        with shared.spent_s.get_lock():
            shared.spent_s.value += time.process_time() - began
    if kind == "NATS":
        source.acknowledge(place, ())
        source.release()


def _follow(source: Any, number: int, shared: _Shared) -> None:
    """Say how many partitions an agent holds; a stream of its own counts as one."""
    while not shared.over.wait(0.05):
        shared.holding[number] = len(getattr(source, "partitions", "1"))
    source.close()


def _nats_source(address: str) -> Any:
    from xas_agent.adapters.nats import NATSShared, NATSSource

    return NATSSource(NATSShared(address=address, partitions=PARTITIONS, lease_s=2))


@contextmanager
def _agents(kind: str, addresses: list[str], model: str) -> Iterator[_Shared]:
    """Start an agent for each address; go on once each has its share."""
    shared = _Shared(len(addresses))
    processes = [
        CONTEXT.Process(target=_work, args=(kind, address, k, model, shared), daemon=True)
        for k, address in enumerate(addresses)
    ]
    for process in processes:
        process.start()
    share = PARTITIONS // len(addresses) if kind == "NATS" else 1
    _wait(lambda: all(held >= share for held in shared.holding), shared)
    yield shared
    shared.over.set()
    for process in processes:
        process.join()


def _wait(condition: Callable[[], object], shared: _Shared) -> None:
    until = time.monotonic() + _SETTLE_S
    while not condition():
        if time.monotonic() > until:
            state = f"{shared.answered.value} frames answered, partitions held: {[*shared.holding]}"
            raise TimeoutError(f"after {_SETTLE_S:g} s: {state}, {len(active_children())} processes live")
        time.sleep(0.01)


def _rate(shared: _Shared, frames: int, send: Callable[[], Any]) -> float:
    shared.go.set()
    began = time.monotonic()
    send()
    _wait(lambda: shared.answered.value >= frames, shared)
    return frames / (shared.last_at.value - began)


def over_zmq(agents: int, frames: int, model: str) -> Rate:
    """Measure agents with a ZMQ stream each, on which its part of the frames comes."""
    each, go = frames // agents, CONTEXT.Event()
    publishers = [Publisher(record_documents(each), 0.0, go) for _ in range(agents)]
    with _agents("ZMQ", [publisher.address for publisher in publishers], model) as shared:
        time.sleep(0.5)  # so that the subscriptions are there
        rate = _rate(shared, agents * each, go.set)
    for publisher in publishers:
        publisher.close()
    return Rate(rate, 1e3 * shared.spent_s.value / (agents * each))


def interleaved(runs: int) -> list[Document]:
    """Return the documents of runs that go on at the same time."""
    found = [record_documents(RUN_FRAMES) for _ in range(runs)]
    return [document for together in zip(*found, strict=True) for document in together]


def over_nats(agents: int, frames: int, model: str) -> Rate:
    """Measure agents that share one JetStream stream of interleaved runs; the server is part of the load."""
    from nats_server import Server

    from xas_agent.adapters.nats import NATSDestination, NATSSink

    documents, total = interleaved(frames // RUN_FRAMES), frames // RUN_FRAMES * RUN_FRAMES
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        server.make_stream("docs", "docs")
        address = f"{server.address}/docs"
        sink = NATSSink(NATSDestination(address=address, partitions=PARTITIONS))
        sink.connect()

        def send() -> None:
            for document in documents:
                sink(*document)

        with _agents("NATS", [address] * agents, model) as shared:
            rate = _rate(shared, total, send)
        sink.close()
    return Rate(rate, 1e3 * shared.spent_s.value / total)


def ways() -> dict[str, Callable[[int, int, str], Rate]]:
    """Return what can be measured here, by name."""
    found: dict[str, Callable[[int, int, str], Rate]] = {"ZMQ, a stream each": over_zmq}
    with suppress(ImportError):
        import nats  # noqa: F401
        from nats_server import SERVER

        if SERVER is not None:
            found["NATS, one stream"] = over_nats
    return found
