"""Send frames over ZMQ faster than the agent answers them; print a table of what became of them.

    python benchmarks/campaigns/overload.py [--seed 0] [--factor 10] [--seconds 60] [--limit 300]

The agent's own rate is measured first. A process then publishes frames at ``factor`` times this rate for ``seconds``,
and for ``AFTER_S`` at a fifth of it. Latencies are from the publisher's clock to a subscriber of the agent. The exit
code is 1 if the frames that were answered, left out and lost are not those that were sent.
"""

import math
import multiprocessing as mp
import resource
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import event_model
import numpy as np
from common import parser_of, report

from xas_agent import XASAgent, load_config
from xas_agent.adapters.zmq import ZMQEndpoint, ZMQSink, ZMQSource
from xas_agent.app.wiring import load_models
from xas_agent.models.runtime import configure_torch, default_threads

AFTER_S = 10.0
NORMAL_AFTER_S = 5.0
POINTS = 341
TRIAL_FRAMES = 1500
VARIANTS = 50
CONTEXT = mp.get_context("spawn")
CONFIG = {"model": {"use": ["co-k"]}}


def scan(seed: int) -> tuple[Any, Any, list[dict[str, Any]]]:
    """Return a run, a stream and the data of some noisy Co spectra."""
    rng = np.random.default_rng(seed)
    run = event_model.compose_run(metadata={"element": "Co", "edge": "K"}, validate=False)
    about = {"source": "campaign", "dtype": "array", "shape": [POINTS]}
    stream = run.compose_descriptor(
        name="primary", data_keys=dict.fromkeys(("energy", "I0", "It"), about), validate=False
    )
    energy = np.linspace(7640, 7860, POINTS)
    data = []
    for _ in range(VARIANTS):
        edge = 7720 + rng.uniform(-1, 1)
        mu = 0.3 + 0.5 + np.arctan((energy - edge) / 1.5) / np.pi + 0.5 * np.exp(-(((energy - edge - 5) / 4) ** 2))
        i0 = np.full(POINTS, 1e6)
        data.append({"energy": energy, "I0": i0, "It": i0 * np.exp(-mu + rng.normal(0, 1e-3, POINTS))})
    return run, stream, data


def publish(seed: int, plan: list[tuple[float, float]], address: Any, go: Any, sent: Any) -> None:
    """Publish one run with the given rates, 1/s, for the given times, s; put the number of frames into ``sent``."""
    sink = ZMQSink(ZMQEndpoint(address="zmq://127.0.0.1:0", bind=True))
    sink.connect()
    address.put(sink.address)
    sink.wait_for_subscriber()
    go.wait()
    run, stream, data = scan(seed)
    sink("start", run.start_doc)
    sink("descriptor", stream.descriptor_doc)
    count, numbers = 0, []
    for rate, seconds in plan:
        began, first = time.monotonic(), count
        while (elapsed := time.monotonic() - began) < seconds:
            while count - first < rate * elapsed:
                values, now = data[count % VARIANTS], time.time()
                event = stream.compose_event(
                    data=values, timestamps=dict.fromkeys(values, now), time=now, validate=False
                )
                sink("event", event)
                count += 1
            time.sleep(0.001)
        numbers.append(count - first)
    sink("stop", run.compose_stop())
    sent.put(numbers)
    sink.close()


@dataclass
class Answers:
    """Counts what the agent says of the frames, with the time at which it says it."""

    latency_s: list[tuple[float, float]] = field(default_factory=list)
    """Time of arrival (Unix s) and latency (s) of each answered frame."""
    notes: Counter[str] = field(default_factory=Counter)
    left_out_at: float = -math.inf
    flags: Counter[str] = field(default_factory=Counter)

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        data, now = doc.get("data", {}), time.time()
        if "latency_ms" in data:
            self.latency_s.append((now, now - data["frame_time"]))
            self.flags[data["flags"]] += 1
        elif "reason" in data and "count" in data:
            self.notes[data["reason"]] += data["count"]
            if data["reason"] == "overload":
                self.left_out_at = now


def own_rate(seed: int, models: Any) -> float:
    """Return the number of frames that the agent answers in a second if nothing is left out."""
    run, stream, data = scan(seed)
    with XASAgent(load_config(CONFIG), models) as agent:
        agent.live = False
        agent("start", run.start_doc)
        agent("descriptor", stream.descriptor_doc)
        began = time.monotonic()
        for count in range(TRIAL_FRAMES):
            if count == TRIAL_FRAMES // 3:
                agent.wait()
                began = time.monotonic()
            values = data[count % VARIANTS]
            agent("event", stream.compose_event(data=values, timestamps=dict.fromkeys(values, 0.0), validate=False))
        agent.wait()
        return (TRIAL_FRAMES - TRIAL_FRAMES // 3) / (time.monotonic() - began)


def overload(seed: int, rate: float, factor: float, seconds: float, limit_s: float, models: Any) -> dict[str, Any]:
    """Run the campaign and return its figures."""
    address, go, sent = CONTEXT.Queue(), CONTEXT.Event(), CONTEXT.Queue()
    plan = [(factor * rate, seconds), (0.2 * rate, AFTER_S)]
    publisher = CONTEXT.Process(target=publish, args=(seed, plan, address, go, sent), daemon=True)
    publisher.start()
    source = ZMQSource(ZMQEndpoint(address=address.get(timeout=60)))
    source.connect()
    answers, stopped = Answers(), threading.Event()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with XASAgent(load_config(CONFIG), models) as agent:
        agent.subscribe(answers)

        def read() -> None:
            for name, doc in source:
                agent(name, doc)
                if name == "stop":
                    stopped.set()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        go.set()
        began = time.time()
        numbers = sent.get(timeout=limit_s)
        complete = stopped.wait(limit_s) and agent.wait(limit_s)
        source.close()
        reader.join()
    publisher.join()
    during = [latency for at, latency in answers.latency_s if at < began + seconds]
    after = [latency for at, latency in answers.latency_s if at >= began + seconds + NORMAL_AFTER_S]
    growth_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    lost, left_out = answers.notes.pop("events lost", 0), answers.notes.pop("overload", 0)
    quantiles = np.percentile(during, [50, 99, 100]) if during else ()  # a busy machine may answer none
    return {
        "own rate, 1/s": round(rate),
        "sent in the overload, 1/s": round(numbers[0] / seconds),
        "sent": sum(numbers),
        "answered": len(answers.latency_s),
        "left out": left_out,
        "lost on the way": lost,
        "other notes": dict(answers.notes),
        "not accounted for": sum(numbers) - len(answers.latency_s) - left_out - lost - sum(answers.notes.values()),
        "answered with reused energy uncertainty": sum(n for f, n in answers.flags.items() if "reused" in f),
        "latency p50, p99, max, s": " ".join(f"{v:.2f}" for v in quantiles),
        f"latency p99 from {NORMAL_AFTER_S:g} s after it, s": f"{np.percentile(after, 99):.2f}" if after else "",
        "last frame left out after the overload, s": round(max(0.0, answers.left_out_at - began - seconds), 1),
        "memory, growth of the maximum, MB": round(growth_mb),
        "complete": complete,
    }


def main() -> None:
    parser = parser_of(__doc__, 300.0, "longest time of a phase, s")
    parser.add_argument("--factor", type=float, default=10.0, help="rate in units of the agent's own")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the overload, s")
    options = parser.parse_args()
    configure_torch(default_threads())
    models = load_models(load_config(CONFIG))
    rate = own_rate(options.seed, models)
    figures = overload(options.seed, rate, options.factor, options.seconds, options.limit, models)
    problems = {
        "not complete within the time limit": not figures.pop("complete"),
        "frames not accounted for": abs(figures["not accounted for"]),
    }
    report(figures, problems)


if __name__ == "__main__":
    main()
