"""Measure the speed of the agent relative to its parts; print a table and write benchmarks.json.

    python benchmarks/run.py [--model co-k] [--out benchmarks.json] [--own-time]

The two sides of every ratio are measured in the same run with the same number of threads, in this process or in
processes that it starts. With a CUDA device, the benchmark also prints absolute figures of the forward pass and the
speed of the device.
"""

import argparse
import functools
import json
import multiprocessing as mp
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import event_model
import msgpack
import msgpack_numpy
import numpy as np
import torch

from xas_agent.adapters.zmq import ZMQEndpoint, ZMQSink, ZMQSource
from xas_agent.agent.spectra import AlignmentSettings, Batch, align
from xas_agent.app.agent import XASAgent
from xas_agent.app.config import load_config
from xas_agent.models import card
from xas_agent.models.runtime import Model, configure_torch, default_threads
from xas_agent.sim_beamline.beamline import BeamlineSettings, SimBeamline

Document = tuple[str, Any]
CONTEXT = mp.get_context("spawn")
FRAME_PERIOD_S = 0.06


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


def make_step_documents(events: int) -> list[Document]:
    """Return documents of a long step scan, with one Event per energy."""
    run = event_model.compose_run(metadata={"element": "Co", "edge": "K"}, validate=False)
    keys = {k: {"dtype": "number", "shape": [], "source": "benchmark"} for k in ("energy", "I0", "It")}
    stream = run.compose_descriptor(name="primary", data_keys=keys, validate=False)
    scan: list[Document] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    energies = np.concatenate([np.linspace(7640, 7820, 150), np.linspace(7820, 7640, 150)])
    for i in range(events):
        e = float(energies[i % 300])
        data = {"energy": e, "I0": 1e6, "It": 1e6 * np.exp(-0.5 - (np.arctan(e - 7720) / np.pi))}
        scan.append(("event", stream.compose_event(data=data, timestamps=dict.fromkeys(data, 0.0), validate=False)))
    return [*scan, ("stop", run.compose_stop())]


def publish(documents: list[Document], pause_s: float, port: Any, go: Any) -> None:
    """Publish documents from a process of its own; ``port`` receives the address."""
    sink = ZMQSink(ZMQEndpoint(address="zmq://127.0.0.1:0", bind=True))
    sink.connect()
    port.put(sink.address)
    sink.wait_for_subscriber()
    go.wait()
    for name, doc in documents:
        sink(name, doc)
        if pause_s and name == "event":
            time.sleep(pause_s)
    time.sleep(1.0)
    sink.close()


def time_estimates(address: str, frames: int, ready: Any, result: Any) -> None:
    """Read the agent's documents; put arrival times (s) and latencies (ms) of the estimates in ``result``."""
    source = ZMQSource(ZMQEndpoint(address=address))
    source.connect()
    ready.set()
    times: list[float] = []
    latency: list[float] = []
    for name, doc in source:
        if name in ("event", "event_page") and "latency_ms" in doc["data"]:
            found = np.atleast_1d(doc["data"]["latency_ms"]).tolist()
            times += [time.monotonic()] * len(found)
            latency += found
            if len(times) == frames:
                break
    source.close()
    result.put((times, latency))


def run_through_zmq(model: str, documents: list[Document], pause_s: float) -> tuple[list[float], list[float]]:
    """Run publisher process → agent in this process → reader process.

    Returns the arrival times (s) and latencies (ms) of the estimates.
    """
    frames = sum(name == "event" for name, _ in documents)
    port, result = CONTEXT.Queue(), CONTEXT.Queue()
    go, ready = CONTEXT.Event(), CONTEXT.Event()
    sender = CONTEXT.Process(target=publish, args=(documents, pause_s, port, go))
    sender.start()
    source = ZMQSource(ZMQEndpoint(address=port.get()))
    sink = ZMQSink(ZMQEndpoint(address="zmq://127.0.0.1:0", bind=True))
    sink.connect()
    reader = CONTEXT.Process(target=time_estimates, args=(sink.address, frames, ready, result))
    reader.start()
    with XASAgent.from_config({"model": {"use": [model]}}) as agent:
        agent.load_models()
        agent.live = pause_s > 0  # else frames of a flood are left out, as under overload
        agent.subscribe(sink)
        source.connect()
        ready.wait()
        sink.wait_for_subscriber(10)
        go.set()
        for name, doc in source:
            agent(name, doc)
            if name == "stop":
                break
        agent.wait(120)
    times, latency = result.get(timeout=60)
    source.close()
    sink.close()
    sender.join()
    reader.join()
    return times, latency


def time_calls(call: Callable[[], Any], seconds: float = 2.0, pause_s: float = 0.0) -> np.ndarray:
    """Return the seconds of each call, repeated for about ``seconds`` after a warm-up, with a pause before each."""
    for _ in range(5):
        call()
    durations: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        time.sleep(pause_s)
        began = time.perf_counter()
        call()
        durations.append(time.perf_counter() - began)
    return np.array(durations)


def measure_forward(name: str) -> dict[str, float]:
    """Time the bare TorchScript forward of a single frame, with the agent's number of threads and with one."""
    model = Model(card.find(name))
    model.warm_up()
    rng = np.random.default_rng(0)
    figures: dict[str, float] = {}
    one = rng.normal(size=(1, len(model.grid))).astype(np.float32)
    figures["forward_p50_ms"] = float(np.median(time_calls(lambda: model.forward(one))) * 1e3)
    # Real frames arrive with pauses, after which cold caches slow the forward.
    figures["forward_paced_p50_ms"] = float(
        np.median(time_calls(lambda: model.forward(one), 6.0, FRAME_PERIOD_S)) * 1e3
    )
    torch.set_num_threads(1)
    figures["forward_one_core_p50_ms"] = float(np.median(time_calls(lambda: model.forward(one))) * 1e3)
    torch.set_num_threads(default_threads())
    return figures


def measure_forward_rate(name: str) -> float:
    """Return frames/s of the bare forward with the agent's number of threads, for the fastest batch size."""
    model = Model(card.find(name))
    model.warm_up()
    rng = np.random.default_rng(0)
    rates = []
    for n in (16, 32, 64, 256):
        x = rng.normal(size=(n, len(model.grid))).astype(np.float32)
        rates.append(n / float(np.median(time_calls(lambda x=x: model.forward(x), 1.0))))
    return max(rates)


def measure_agent_rate(name: str, frames: int) -> float:
    """Return frames/s of the agent, from ZMQ in to ZMQ out."""
    times, _ = run_through_zmq(name, record_documents(frames), pause_s=0.0)
    return (len(times) - 1) / (times[-1] - times[0])


def measure_ratios(name: str, frames: int, rounds: int) -> dict[str, float]:
    """Return the medians over rounds of rates and ratios; the two sides alternate, because the machine drifts."""
    before = measure_forward_rate(name)
    rates: list[tuple[float, ...]] = []
    for _ in range(rounds):
        agent, after, ingest = measure_agent_rate(name, frames), measure_forward_rate(name), measure_ingest(name)
        forward, before = (before + after) / 2, after
        rates.append((agent, forward, agent / forward, *ingest, ingest[0] / ingest[1]))
    names = ("zmq_frames_per_s", "forward_frames_per_s", "zmq_of_forward")
    names += ("ingest_documents_per_s", "dispatcher_documents_per_s", "ingest_of_dispatcher")
    return dict(zip(names, np.median(rates, axis=0).tolist(), strict=True))


def measure_processor(name: str, frames: int, rounds: int) -> dict[str, float]:
    """Return the processor time per frame (ms) of the bare batched forward and of the agent, documents in to out.

    Other work on the machine affects it less than wall time. The values are medians over the rounds.
    """
    model = Model(card.find(name))
    x = np.random.default_rng(0).normal(size=(256, len(model.grid))).astype(np.float32)
    model.warm_up()

    def forward() -> float:
        began = time.process_time()
        for _ in range(4):
            model.forward(x)
        return (time.process_time() - began) / (4 * len(x))

    times: list[tuple[float, ...]] = []
    for _ in range(rounds):
        before, agent_times = forward(), []
        for documents in (record_documents(64), record_documents(frames)):  # the first warms up
            with XASAgent.from_config({"model": {"use": [name]}}) as agent:
                agent.load_models()
                agent.live = False  # so that no frame is left out under overload
                agent.subscribe(lambda kind, doc: None)
                began = time.process_time()
                for kind, doc in documents:
                    agent(kind, doc)
                agent.wait(300)
                agent_times.append(time.process_time() - began)
        bare, whole = (before + forward()) / 2, agent_times[-1] / frames
        times.append((1e3 * bare, 1e3 * whole, bare / whole))
    names = ("forward_processor_ms", "agent_processor_ms", "agent_of_forward_processor")
    return dict(zip(names, np.median(times, axis=0).tolist(), strict=True))


class TimedModel(Model):
    """A model that adds up the processor time of its forward, s."""

    spent_s = 0.0

    def forward(self, spectra: np.ndarray) -> np.ndarray:
        began = time.thread_time()
        try:
            return super().forward(spectra)
        finally:
            self.spent_s += time.thread_time() - began


def in_pages(documents: list[Document], rows: int = 250) -> list[Document]:
    """Return documents with EventPages in place of the Events of their only stream."""
    events = [doc for name, doc in documents if name == "event"]
    parts = [events[k : k + rows] for k in range(0, len(events), rows)]
    pages = [("event_page", dict(event_model.pack_event_page(*part))) for part in parts]
    return [*documents[:2], *pages, documents[-1]]


def measure_own_time(name: str, frames: int, rounds: int) -> dict[str, float]:
    """Return the processor time per frame (ms) and per Event of a step scan (µs) of the agent without its network.

    Documents come as Events of whole spectra, as pages of 250 of them, or as Events of points. The agent's own are
    taken as they are published, in pages. The values are medians over the rounds.
    """
    torch.set_num_threads(1)  # its processor time is then that of the agent's thread
    documents, points = record_documents(frames), 5 * frames
    cases = {
        "own_from_events_ms": (documents, 1e3 / frames),
        "own_from_pages_ms": (in_pages(documents), 1e3 / frames),
        "own_per_step_event_us": (make_step_documents(points), 1e6 / points),
    }

    def measure(case: list[Document]) -> float:
        model = TimedModel(card.find(name))
        model.warm_up()
        with XASAgent(load_config(None), [model], keep=0) as agent:
            agent.live = False  # so that no frame is left out under overload
            agent.subscribe(lambda kind, doc: None, pages=True)
            model.spent_s, began = 0.0, time.process_time()
            for document in case:
                agent(*document)
            agent.wait(300)
            return time.process_time() - began - model.spent_s

    times: dict[str, list[float]] = {kind: [] for kind in cases}
    for k in range(rounds + 1):
        for kind, (case, scale) in cases.items():
            found = measure(case) * scale
            times[kind] += [found] if k else []  # the first are slower
    torch.set_num_threads(default_threads())
    return {kind: float(np.median(found)) for kind, found in times.items()}


def measure_callback(name: str) -> dict[str, float]:
    """Measure the time per event that the callback takes from the RunEngine's thread while the agent works."""
    documents = record_documents(400)
    durations: list[float] = []
    with XASAgent.from_config({"model": {"use": [name]}}) as agent:
        agent.load_models()
        for kind, doc in documents:
            began = time.perf_counter()
            agent(kind, doc)
            durations.append(time.perf_counter() - began)
            time.sleep(0.005)
        agent.wait(60)
    p50, p99 = np.percentile(durations, [50, 99]) * 1e3
    return {"callback_p50_ms": float(p50), "callback_p99_ms": float(p99)}


def run_dispatcher(address: str, ready: Any, ended: Any) -> None:
    """Run bluesky's RemoteDispatcher with a callback that only records the time of the stop document."""
    from bluesky.callbacks.zmq import RemoteDispatcher

    unpack = functools.partial(msgpack.unpackb, raw=False, object_hook=msgpack_numpy.decode)
    dispatcher = RemoteDispatcher(address.removeprefix("tcp://"), deserializer=unpack)
    dispatcher.subscribe(lambda name, doc: ended.put(time.monotonic()) if name == "stop" else None)
    ready.set()
    dispatcher.start()


def measure_ingest(name: str, events: int = 21_000) -> tuple[float, float]:
    """Return documents/s of a step scan, of the agent and of the RemoteDispatcher.

    The time runs from the start of publishing to the end of the stop document's processing. The agent assembles
    frames and makes estimates; the dispatcher only calls back.
    """
    documents = make_step_documents(events)

    def start_publisher() -> tuple[Any, str, Any]:
        port, go = CONTEXT.Queue(), CONTEXT.Event()
        process = CONTEXT.Process(target=publish, args=(documents, 0.0, port, go))
        process.start()
        return process, port.get(), go

    process, address, go = start_publisher()
    ready, ended = CONTEXT.Event(), CONTEXT.Queue()
    listener = CONTEXT.Process(target=run_dispatcher, args=(address, ready, ended))
    listener.start()
    ready.wait()
    time.sleep(1.0)
    began = time.monotonic()
    go.set()
    dispatcher_rate = events / (ended.get(timeout=120) - began)
    listener.terminate()
    process.join()

    process, address, go = start_publisher()
    source = ZMQSource(ZMQEndpoint(address=address))
    with XASAgent.from_config({"model": {"use": [name]}}) as agent:
        agent.load_models()
        source.connect()
        time.sleep(1.0)
        began = time.monotonic()
        go.set()
        for kind, doc in source:
            agent(kind, doc)
            if kind == "stop":
                break
        agent.wait(120)
        agent_rate = events / (time.monotonic() - began)
    source.close()
    process.join()
    return agent_rate, dispatcher_rate


def measure_alignment(name: str) -> dict[str, float]:
    """Time the alignment of a spectrum of 341 points with a reference channel, alone and in a batch of 256."""
    model = Model(card.find(name))
    events = [doc["data"] for kind, doc in record_documents(256) if kind == "event"]
    energy = events[0]["energy"]
    mu = np.stack([np.log(e["I0"] / e["It"]) for e in events])
    reference = np.stack([np.log(e["It"] / e["Iref"]) for e in events])
    settings = AlignmentSettings()

    def batch(n: int) -> float:
        frames = Batch(energy, mu[:n], reference=reference[:n])
        durations = time_calls(lambda: align(frames, model.grid, model.edge, settings), seconds=1.5)
        return float(np.median(durations)) / n * 1e6

    return {"alignment_alone_us": batch(1), "alignment_batched_us": batch(256)}


def measure_cuda(name: str) -> Iterator[str]:
    """Yield lines with the speed of the forward on a CUDA device, transfers included, and of the device itself."""
    model = Model(card.find(name), device="cuda")
    model.warm_up((1, 32, 1024, 4096))
    parameters = sum(p.numel() for p in torch.jit.load(card.find(name) / "model.ts").parameters())
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, len(model.grid))).astype(np.float32)
    p50, p99 = np.percentile(time_calls(lambda: model.forward(one), 5.0), [50, 99]) * 1e3
    yield f"{torch.cuda.get_device_name()}: batch 1 p50 {p50:.3f} ms, p99 {p99:.3f} ms, transfers included"
    size = 8192
    a = torch.randn(size, size, device="cuda")

    def product() -> None:
        torch.mm(a, a)
        torch.cuda.synchronize()

    peak = 2 * size**3 / float(np.median(time_calls(product)))
    block = torch.empty(2**28, device="cuda")

    def copy() -> None:
        block.copy_(block.flip(0))
        torch.cuda.synchronize()

    bytes_per_s = 4 * 4 * 2**28 / float(np.median(time_calls(copy)))  # flip and copy each read and write once
    yield f"device: {peak / 1e12:.1f} TFLOP/s in float32 without TF32, {bytes_per_s / 1e9:.0f} GB/s"
    for n in (32, 1024, 4096):
        x = rng.normal(size=(n, len(model.grid))).astype(np.float32)
        rate = n / float(np.median(time_calls(lambda x=x: model.forward(x))))
        yield f"batch {n}: {rate:,.0f} frames/s ({parameters:,} parameters)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="co-k")
    parser.add_argument("--frames", type=int, default=2000, help="per measurement of the rate")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each rate; the table shows medians")
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"))
    parser.add_argument("--own-time", action="store_true", help="measure only the time of the agent itself")
    options = parser.parse_args()
    configure_torch(default_threads())
    load_config(None)
    if options.own_time:
        for name, value in measure_own_time(options.model, options.frames, options.rounds).items():
            print(f"{name:45} {value:.3f}")
        return

    bare = measure_forward(options.model)
    _, latency = run_through_zmq(options.model, record_documents(150), pause_s=FRAME_PERIOD_S)
    # The machine drifts: the agent is compared with the mean of the forward before and after it.
    after = measure_forward(options.model)
    bare = {k: (v + after[k]) / 2 for k, v in bare.items()}
    figures = {
        **bare,
        **measure_ratios(options.model, options.frames, options.rounds),
        **measure_callback(options.model),
    }
    figures |= measure_alignment(options.model) | measure_processor(options.model, options.frames, options.rounds)
    figures |= measure_own_time(options.model, options.frames, options.rounds)
    p50, p99 = np.percentile(latency[10:], [50, 99])
    figures |= {"latency_p50_ms": float(p50), "latency_p99_ms": float(p99)}
    rows = [
        (
            "latency p50, received to published",
            f"{p50:.2f} ms",
            f"{1.5 * bare['forward_paced_p50_ms'] + 1:.2f} ms allowed",
        ),
        (
            "bare forward at the same frame period, p50",
            f"{bare['forward_paced_p50_ms']:.2f} ms",
            "1.5 × this + 1 ms allowed",
        ),
        ("bare forward back to back, p50", f"{bare['forward_p50_ms']:.2f} ms", f"threads: {default_threads()}"),
        ("bare forward of one frame, one core", f"{bare['forward_one_core_p50_ms']:.2f} ms", "5 ms allowed"),
        (
            "frames/s, ZMQ in to ZMQ out",
            f"{figures['zmq_frames_per_s']:.0f}",
            f"{figures['zmq_of_forward']:.2f} of bare batched",
        ),
        (
            "processor time per frame, documents in to out",
            f"{figures['agent_processor_ms']:.2f} ms",
            f"bare batched forward: {figures['agent_of_forward_processor']:.2f} of it",
        ),
        (
            "own time per frame, Events",
            f"{figures['own_from_events_ms']:.3f} ms",
            "0.15 ms allowed; without the forward",
        ),
        ("own time per frame, pages", f"{figures['own_from_pages_ms']:.3f} ms", "0.03 ms aimed at"),
        ("own time per Event of a step scan", f"{figures['own_per_step_event_us']:.0f} µs", "30 µs allowed"),
        ("callback per event, p99", f"{figures['callback_p99_ms']:.3f} ms", "0.2 ms allowed"),
        (
            "documents/s taken in",
            f"{figures['ingest_documents_per_s']:.0f}",
            f"{figures['ingest_of_dispatcher']:.2f} of RemoteDispatcher",
        ),
        ("alignment of one spectrum", f"{figures['alignment_alone_us']:.0f} µs", ""),
        ("alignment in a batch of 256", f"{figures['alignment_batched_us']:.0f} µs", "per spectrum"),
    ]
    print(f"{options.model} on {platform.machine()}, threads: {default_threads()}, torch {torch.__version__}")
    for name, value, note in rows:
        print(f"{name:45} {value:>12}  {note}")
    if torch.cuda.is_available():
        for line in measure_cuda(options.model):
            print(line)
    options.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
