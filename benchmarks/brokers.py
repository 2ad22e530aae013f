"""Measure how fast documents go through NATS and Kafka relative to ZMQ; print a table.

    python benchmarks/brokers.py [--events 2000] [--rounds 5]

Sink and source of a transport are in this process, on two threads. In each round the transports take turns: whole
spectra as Events, first one every 20 ms for the latency, then all at once for the rate, until the last one is there.
NATS is a server beside this process, with its streams on the disk; Kafka is librdkafka's mock cluster in it. Of each
figure the median of the rounds is printed, with the smallest and the largest, and its ratio to that of ZMQ.
"""

import argparse
import functools
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))
sys.path.append(str(Path(__file__).parent / "campaigns"))

from kafka_cluster import Cluster
from nats_server import Server
from recorded import Scans  # pyright: ignore[reportMissingImports]

from xas_agent.adapters.kafka import KafkaDestination, KafkaShared, KafkaSink, KafkaSource
from xas_agent.adapters.nats import NATSDestination, NATSShared, NATSSink, NATSSource
from xas_agent.adapters.zmq import ZMQEndpoint, ZMQSink, ZMQSource

PERIOD_S, PACED = 0.02, 200
"""Time from one Event to the next, and number of Events, for the latency."""
MOCK = {"fetch.wait.max.ms": 5}
"""A broker answers a waiting fetch when a message comes; the mock cluster does so when its time is over."""
Send = Callable[[str, Any], Any]


class Receiver:
    """Reads a source on a thread, and notes when each document comes."""

    def __init__(self, source: Any) -> None:
        self.came: dict[str, float] = {}
        self._source = source
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for _, doc in self._source:
            self.came[doc["uid"]] = time.perf_counter()
            if len(self.came) % 100 == 0 and hasattr(self._source, "acknowledge"):
                self._source.acknowledge(self._source.position, ())

    def wait(self, uid: str) -> float:
        """Return when a document came."""
        while uid not in self.came:
            time.sleep(0.001)
        return self.came[uid]

    def close(self) -> None:
        self._source.close()
        self._thread.join()


@contextmanager
def over_zmq() -> Iterator[tuple[Send, Receiver]]:
    sink = ZMQSink(ZMQEndpoint(address="zmq://127.0.0.1:0", bind=True))
    sink.connect()
    source = ZMQSource(ZMQEndpoint(address=sink.address))
    source.connect()
    sink.wait_for_subscriber(30)
    receiver = Receiver(source)
    yield sink, receiver
    receiver.close()
    sink.close()


@contextmanager
def over_broker(sink: Any, source: Any) -> Iterator[tuple[Send, Receiver]]:
    source.connect()
    receiver = Receiver(source)
    while not source.partitions:
        time.sleep(0.01)
    yield sink, receiver
    receiver.close()
    source.acknowledge(source.position, ())
    source.release()
    sink.close()


def measure(send: Send, receiver: Receiver, events: int, seed: int) -> tuple[float, float, float]:
    """Return the median and the 99th percentile of the latency, ms, and the rate, Events/s."""
    scans, sent = Scans(seed), dict[str, float]()
    for document in scans.begin():
        send(*document)
    for _ in range(PACED):
        name, doc = scans.whole(time.time())
        sent[doc["uid"]] = time.perf_counter()
        send(name, doc)
        time.sleep(PERIOD_S)
    latency = [1e3 * (receiver.wait(uid) - at) for uid, at in sent.items()]
    burst = [scans.whole(0.0) for _ in range(events)]
    began = time.perf_counter()
    for document in burst:
        send(*document)
    rate = events / (receiver.wait(burst[-1][1]["uid"]) - began)
    p50, p99 = np.percentile(latency, (50, 99))
    return float(p50), float(p99), rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        cluster = Cluster()
        found: dict[str, list[tuple[float, float, float]]] = {"ZMQ": [], "NATS": [], "Kafka": []}
        for k in range(options.rounds):
            server.make_stream(f"docs{k}", f"docs{k}")
            nats, kafka = f"{server.address}/docs{k}", cluster.make_topic(f"docs{k}", 1)
            ways = {
                "ZMQ": over_zmq,
                "NATS": functools.partial(
                    over_broker, NATSSink(NATSDestination(address=nats)), NATSSource(NATSShared(address=nats))
                ),
                "Kafka": functools.partial(
                    over_broker,
                    KafkaSink(KafkaDestination(address=kafka)),
                    KafkaSource(KafkaShared(address=kafka, security=MOCK)),
                ),
            }
            for name, way in ways.items():
                with way() as (send, receiver):
                    found[name].append(measure(send, receiver, options.events, k))
    for k, what in enumerate(("latency p50, ms", "latency p99, ms", "rate, Events/s")):
        of_zmq = np.median([figures[k] for figures in found["ZMQ"]])
        for name, rounds in found.items():
            values = [figures[k] for figures in rounds]
            median = np.median(values)
            spread = f"({min(values):.4g} to {max(values):.4g})"
            print(f"{what:<16} {name:<6} {median:>9.4g} {spread:<22} {median / of_zmq:6.2f} × ZMQ")


if __name__ == "__main__":
    main()
