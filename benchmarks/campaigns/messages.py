"""Send damaged, hostile and broken messages to a live agent; print a table of what it made of the valid frames.

    python benchmarks/campaigns/messages.py [--messages 1000000] [--seed 0] [--limit 7200]

The messages arrive over ZMQ; documents that msgpack cannot represent are given to the agent as by a RunEngine. Among
them are the documents of valid runs: one of Events per spectrum and one of Events per energy, which last as long as
the campaign, and one of a single frame in each round. The exit code is 1 if one of their frames is not answered, is
answered twice or otherwise than the first, if the agent logs an exception or its thread ends, or if the memory grows
by more than ``MEMORY_MB`` after the first twentieth, and at least ``WARM_MESSAGES``.
"""

import logging
import math
import random
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
from common import memory_mb, parser_of, report
from hostile import KINDS, Message, stray_starts

from xas_agent import XASAgent, load_config
from xas_agent.adapters.codecs import to_msgpack
from xas_agent.adapters.zmq import ZMQEndpoint, ZMQSource
from xas_agent.app.wiring import load_models
from xas_agent.models.runtime import configure_torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from damaged_documents import CONFIG, FAILURES, WAIT_S, cobalt_points
from made_runs import Made

MEMORY_MB = 50.0
WARM_MESSAGES = 5000
ROUND = 10
"""Number of hostile items in a round, on average; each round has a valid frame of each kind."""
TOLERANCE = {"OS_mean": 1e-3, "CN_mean": 1e-3, "e0_ev": 1e-2, "edge_step": 1e-3}
"""Largest difference between answers to one spectrum."""


class ValidRun:
    """A run whose frames are all the same spectrum."""

    def __init__(self, *, array: bool) -> None:
        self.made = Made(element="Co")
        self.array = array
        self.frames = 0
        self._taken = 0

    @property
    def uid(self) -> str:
        return self.made.uid

    def frame(self) -> list[Message]:
        """Return the documents of one more frame, first those of the run's beginning."""
        energy, it = cobalt_points()
        if self.array:
            self.made.event("primary", True, energy, it, time.time())
        else:
            for e, value in zip(energy.tolist(), it.tolist(), strict=True):
                self.made.event("primary", False, e, value, time.time())
        self.frames += 1
        return self._new()

    def stop(self) -> list[Message]:
        self.made.stop()
        return self._new()

    def _new(self) -> list[Message]:
        new: list[Message] = [*self.made.docs]
        self.made.docs.clear()
        return new


@dataclass
class Answers:
    """What the agent publishes of the valid runs."""

    frames: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Number of answers by run and frame number."""
    wrong: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    """What the agent says of valid runs instead of an answer."""
    others: int = 0
    """Number of frames of other runs that are answered."""
    expected: dict[str, float] = field(default_factory=dict)
    _valid: set[str] = field(default_factory=set)
    _runs: dict[str, str] = field(default_factory=dict)
    _streams: dict[str, str] = field(default_factory=dict)

    def watch(self, run: ValidRun) -> None:
        self._valid.add(run.uid)

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            self._runs[doc["uid"]] = doc["parent_uid"]
        elif name == "descriptor":
            self._streams[doc["uid"]] = doc["run_start"]
        elif name == "stop":
            self._runs.pop(doc["run_start"], None)
            self._streams = {k: run for k, run in self._streams.items() if run != doc["run_start"]}
        elif name == "event":
            self._count(self._runs[self._streams[doc["descriptor"]]], doc["data"])

    def _count(self, uid: str, data: dict[str, Any]) -> None:
        if "OS_mean" not in data:
            if uid in self._valid and "count" in data:
                self.notes[f"{data['reason']}: {data['detail']}"[:200]] += data["count"]
            return
        if uid not in self._valid:
            self.others += 1
            return
        self.frames[uid, data["frame_seq_num"]] += 1
        found = {key: data[key] for key in TOLERANCE}
        expected = self.expected = self.expected or found
        if any(not abs(found[key] - expected[key]) <= tolerance for key, tolerance in TOLERANCE.items()):
            self.wrong.append(f"{found}, expected {expected}")

    def take(self, run: ValidRun) -> dict[int, int]:
        """Return the number of answers of each frame of a run so far, and forget them."""
        taken = [(uid, number) for uid, number in self.frames if uid == run.uid]
        return {number: self.frames.pop((uid, number)) for uid, number in taken}


class Failures(logging.Handler):
    """Counts the lines with which the agent logs an exception, and all others by level."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines[record.levelname.lower()] += 1
        if record.exc_info or getattr(record, "event", "") in FAILURES:
            self.found[self.format(record)[-600:]] += 1


class Wire:
    """A publisher and the agent's source of its messages."""

    def __init__(self, agent: XASAgent) -> None:
        self._agent = agent
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.sndhwm = 0
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self._source = ZMQSource(ZMQEndpoint(address=f"zmq://127.0.0.1:{port}", max_message_mb=16))
        self._source.connect()
        self._marks: dict[str, threading.Event] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.sent = 0

    @property
    def malformed(self) -> int:
        return self._source.malformed

    def send(self, message: Message) -> None:
        """Send a message, or give a document that msgpack cannot represent to the agent itself."""
        self.sent += 1
        if isinstance(message, tuple):
            name, doc = message
            try:
                message = b" ".join((b"", str(name).encode(), to_msgpack(doc)))
            except Exception:
                self._agent(name, doc)
                return
        self._socket.send(message)

    def wait(self) -> bool:
        """Wait until the source has received all messages so far."""
        uid = str(uuid.uuid4())
        self._marks[uid] = arrived = threading.Event()
        until = time.monotonic() + WAIT_S
        mark = b" start " + to_msgpack({"uid": uid, "time": 0.0, "xas_agent": True})
        while not arrived.is_set() and time.monotonic() < until:
            self._socket.send(mark)  # again, since the first ones go before the subscription has arrived
            arrived.wait(1.0)
        return arrived.is_set()

    def _read(self) -> None:
        for name, doc in self._source:
            if name == "start" and isinstance(doc, dict) and (mark := self._marks.pop(str(doc.get("uid")), None)):
                mark.set()
            else:
                self._agent(name, doc)

    def close(self) -> None:
        self._source.close()
        self._reader.join()
        self._socket.close(linger=0)
        self._context.term()


def mixed(parts: list[list[Message]], rng: random.Random) -> Iterator[Message]:
    """Mix lists; the order within each list is kept."""
    turns = [iterator for part in parts for iterator in [iter(part)] * len(part)]
    rng.shuffle(turns)
    return (next(iterator) for iterator in turns)


class Campaign:
    """A live agent, the messages to it, and what is wrong with its answers."""

    def __init__(self, seed: int, agent: XASAgent) -> None:
        self.agent = agent
        self.wire = Wire(agent)
        self.answers = Answers()
        self.problems: Counter[str] = Counter()
        self.memory = [memory_mb()]
        """Size of the process after each round, MB."""
        self.valid = 0
        """Number of valid frames sent."""
        self._rng = random.Random(seed)
        self._long = {ValidRun(array=array): Counter[int]() for array in (True, False)}
        """The long runs, with the number of answers of each frame."""
        for run in self._long:
            self.answers.watch(run)
        agent.subscribe(self.answers)
        assert self.wire.wait(), "nothing arrives"

    def round(self, *, last: bool) -> bool:
        """Send some hostile items, mixed with valid frames, and check the answers; False if there are none."""
        rng = self._rng
        short = ValidRun(array=rng.random() < 0.5)
        self.answers.watch(short)
        kinds = rng.choices(list(KINDS), list(KINDS.values()), k=0 if last else ROUND)
        while kinds.count(stray_starts) > 1:  # more runs than may begin at once
            kinds.remove(stray_starts)
        long = [run.stop() if last else run.frame() for run in self._long]
        for message in mixed([*long, short.frame() + short.stop(), *(kind(rng) for kind in kinds)], rng):
            self.wire.send(message)
        if not (self.wire.wait() and self.agent.wait(WAIT_S)):
            self.problems["the agent does not finish"] += 1
            return False
        self.valid += 1 if last else 3
        if (answered := self.answers.take(short)) != {1: 1}:
            self.problems["short runs not answered once"] += 1
            print(f"short run: {answered}; {dict(self.answers.notes)}", file=sys.stderr, flush=True)
        self.answers.notes.clear()
        for run, seen in self._long.items():
            seen.update(self.answers.take(run))
        self.memory.append(memory_mb())
        return True

    def end(self) -> None:
        """Check the answers of the long runs."""
        for run, seen in self._long.items():
            kind = "spectrum" if run.array else "energy"
            self.problems[f"frames without an answer, an Event per {kind}"] += run.frames - len(seen)
            self.problems["frames answered twice"] += sum(n - 1 for n in seen.values())
        self.problems["wrong answers"] += len(self.answers.wrong)
        self.problems["thread of the agent ended"] += not self.agent.alive
        self.wire.close()


def campaign(count: int, seed: int, limit_s: float) -> dict[str, Any]:
    """Send at least ``count`` messages and return the figures."""
    failures = Failures()
    logger = logging.getLogger("xas_agent")
    logger.addHandler(failures)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    config = load_config(CONFIG)
    began, base, shown = time.monotonic(), math.nan, 0
    with XASAgent(config, load_models(config), keep=0) as agent:
        run = Campaign(seed, agent)
        while run.wire.sent < count and time.monotonic() - began < limit_s:
            if not run.round(last=False):
                break
            if math.isnan(base) and run.wire.sent >= max(count / 20, min(WARM_MESSAGES, count / 2)):
                base, run.memory = run.memory[-1], run.memory[-1:]
            if (part := 20 * run.wire.sent // count) > shown:
                shown = part
                line = f"{run.wire.sent} messages, {time.monotonic() - began:.0f} s, {run.memory[-1]:.0f} MB"
                print(line, dict(run.problems), file=sys.stderr, flush=True)
        run.round(last=True)
        run.end()
    run.problems["memory not flat"] += not max(run.memory) - base <= MEMORY_MB
    run.problems["messages not sent within the time limit"] += max(0, count - run.wire.sent)
    for what, number in failures.found.items():
        run.problems[f"logged: {what}"] += number
    for wrong in run.answers.wrong[:3]:
        print(wrong, file=sys.stderr)
    memory = f"{base:.0f} {max(run.memory):.0f} {run.memory[-1]:.0f}"
    return {
        "messages": run.wire.sent,
        "of which no documents": run.wire.malformed,
        "valid frames": run.valid,
        "answered frames of damaged runs": run.answers.others,
        "log lines": " ".join(f"{level} {n}" for level, n in sorted(failures.lines.items())),
        "memory when warm, highest since, at the end, MB": memory,
        "time, s": round(time.monotonic() - began),
        "problems": run.problems,
    }


def main() -> None:
    parser = parser_of(__doc__, 7200.0, "time after which no more is sent, s")
    parser.add_argument("--messages", type=int, default=1_000_000)
    options = parser.parse_args()
    configure_torch(1)
    figures = campaign(options.messages, options.seed, options.limit)
    report(figures, figures.pop("problems"))


if __name__ == "__main__":
    main()
