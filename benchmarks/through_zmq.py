"""The agent between ZMQ in and ZMQ out: rate, latency, time taken from the RunEngine, and documents taken in."""

import functools
import time
from collections.abc import Callable
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
from forward import FRAME_PERIOD_S, Networks
from scans import CONTEXT, Document, Publisher, make_step_documents, record_documents

from xas_agent.adapters.zmq import ZMQEndpoint, ZMQSink, ZMQSource
from xas_agent.app.agent import XASAgent
from xas_agent.app.output.memory import keep_what_exists

SKIPPED_FRAMES = 10
"""Number of first frames whose latency does not count."""

Arrivals = list[tuple[float, list[float]]]
"""When each document with estimates came, s, and the latencies of its estimates, ms."""


def _read_estimates(address: str, frames: int, ready: Any, result: Any) -> None:
    """Read the agent's documents until ``frames`` estimates came; put the arrivals into ``result``."""
    source = ZMQSource(ZMQEndpoint(address=address))
    source.connect()
    ready.set()
    arrivals: Arrivals = []
    for name, doc in source:
        if name in ("event", "event_page") and "latency_ms" in doc["data"]:
            arrivals.append((time.monotonic(), np.atleast_1d(doc["data"]["latency_ms"]).tolist()))
            if sum(len(latency) for _, latency in arrivals) == frames:
                break
    source.close()
    result.put(arrivals)


def run_through_zmq(model: str, documents: list[Document], pause_s: float) -> Arrivals:
    """Run publisher process → agent in this process → reader process; return the arrivals at the reader."""
    frames = sum(name == "event" for name, _ in documents)
    result, go, ready = CONTEXT.Queue(), CONTEXT.Event(), CONTEXT.Event()
    publisher = Publisher(documents, pause_s, go)
    source = ZMQSource(ZMQEndpoint(address=publisher.address))
    sink = ZMQSink(ZMQEndpoint(address="zmq://127.0.0.1:0", bind=True))
    sink.connect()
    reader = CONTEXT.Process(target=_read_estimates, args=(sink.address, frames, ready, result))
    reader.start()
    with XASAgent.from_config({"model": {"use": [model]}}) as agent:
        agent.load_models()
        agent.live = pause_s > 0  # else frames of a flood are left out, as under overload
        agent.subscribe(sink, pages=True)  # as an agent with publish.address does
        source.connect()
        ready.wait()
        sink.wait_for_subscriber(10)
        go.set()
        for name, doc in source:
            agent(name, doc)
            if name == "stop":
                break
        agent.wait(120)
    arrivals = result.get(timeout=60)
    source.close()
    sink.close()
    publisher.close()
    reader.join()
    return arrivals


def rate_of(arrivals: Arrivals) -> float:
    """Return estimates/s from the first document that came to the last; those of the first one do not count.

    >>> rate_of([(10.0, [1.0] * 64), (10.5, [1.0] * 50), (11.0, [1.0] * 50)])
    100.0
    """
    return sum(len(latency) for _, latency in arrivals[1:]) / (arrivals[-1][0] - arrivals[0][0])


def measure_rate(networks: Networks, frames: int) -> dict[str, float]:
    """Compare frames/s, ZMQ in to ZMQ out, with the mean of the bare forwards before and after."""
    before = networks.rates()
    rate = rate_of(run_through_zmq(networks.model.name, record_documents(frames), pause_s=0.0))
    now, former = np.mean([before, networks.rates()], axis=0).tolist()
    return {"zmq_frames_per_s": rate, "zmq_of_forward": rate / now, "zmq_of_former": rate / former}


def measure_latency(networks: Networks, frames: int = 120) -> dict[str, float]:
    """Compare the latency of paced frames with the mean of the bare forwards at the same pace before and after."""

    def bare() -> float:
        # Frames come with pauses, after which cold caches slow the forward.
        return 1e3 * networks.now(networks.spectra[:1], seconds=3.0, pause_s=FRAME_PERIOD_S)

    before = bare()
    arrivals = run_through_zmq(networks.model.name, record_documents(frames), FRAME_PERIOD_S)
    latency = [ms for _, found in arrivals for ms in found][SKIPPED_FRAMES:]
    paced, (p50, p99) = (before + bare()) / 2, np.percentile(latency, [50, 99]).tolist()
    return {
        "forward_paced_p50_ms": paced,
        "latency_p50_ms": p50,
        "latency_p50_of_allowed": p50 / (1.2 * paced + 0.5),
        "latency_p99_ms": p99,
        "latency_p99_of_p50": p99 / p50,
    }


def measure_callback(networks: Networks, frames: int = 300) -> dict[str, float]:
    """Measure the time per event that the callback takes from the RunEngine's thread while the agent works."""
    durations: list[float] = []
    with XASAgent.from_config({"model": {"use": [networks.model.name]}}) as agent:
        agent.load_models()
        for kind, doc in record_documents(frames):
            began = time.perf_counter()
            agent(kind, doc)
            durations.append(time.perf_counter() - began)
            time.sleep(0.005)
        agent.wait(60)
    p50, p99 = (np.percentile(durations, [50, 99]) * 1e3).tolist()
    return {"callback_p50_ms": p50, "callback_p99_ms": p99}


def _run_dispatcher(address: str, ready: Any, ended: Any) -> None:
    """Run bluesky's RemoteDispatcher with a callback that only records the time of the stop document."""
    from bluesky.callbacks.zmq import RemoteDispatcher

    unpack = functools.partial(msgpack.unpackb, raw=False, object_hook=msgpack_numpy.decode)
    dispatcher = RemoteDispatcher(address.removeprefix("tcp://"), deserializer=unpack)
    dispatcher.subscribe(lambda name, doc: ended.put(time.monotonic()) if name == "stop" else None)
    ready.set()
    dispatcher.start()


def measure_documents(networks: Networks, events: int = 21_000) -> dict[str, float]:
    """Return documents/s of a step scan, of the agent and of the RemoteDispatcher.

    The time runs from the start of publishing to the end of the stop document's processing. The agent assembles
    frames and makes estimates; the dispatcher only calls back.
    """
    documents = make_step_documents(events)

    def rate(take: Callable[[str, Callable[[], float]], float]) -> float:
        go = CONTEXT.Event()
        publisher = Publisher(documents, 0.0, go)

        def begin() -> float:
            time.sleep(1.0)  # so that the subscription is there
            go.set()
            return time.monotonic()

        seconds = take(publisher.address, begin)
        publisher.close()
        return events / seconds

    def dispatcher(address: str, begin: Callable[[], float]) -> float:
        ready, ended = CONTEXT.Event(), CONTEXT.Queue()
        listener = CONTEXT.Process(target=_run_dispatcher, args=(address, ready, ended))
        listener.start()
        ready.wait()
        began = begin()
        seconds = ended.get(timeout=120) - began
        listener.terminate()
        return seconds

    def agent(address: str, begin: Callable[[], float]) -> float:
        source = ZMQSource(ZMQEndpoint(address=address))
        with XASAgent.from_config({"model": {"use": [networks.model.name]}}) as agent:
            agent.load_models()
            source.connect()
            keep_what_exists()  # as a session does
            began = begin()
            for kind, doc in source:
                agent(kind, doc)
                if kind == "stop":
                    break
            agent.wait(120)
            seconds = time.monotonic() - began
        source.close()
        return seconds

    theirs, ours = rate(dispatcher), rate(agent)
    return {
        "documents_per_s": ours,
        "dispatcher_documents_per_s": theirs,
        "documents_of_dispatcher": ours / theirs,
    }
