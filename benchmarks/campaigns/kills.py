"""Kill the agent at random moments, start it again with the same command, and print what became of its work.

    python benchmarks/campaigns/kills.py [--kills 200] [--zmq 50] [--seed 0] [--limit 7200]

From a file of documents: the results of all lives together are compared with those of an agent that nobody kills.
Over ZMQ: the frames whose documents the journal had accepted at each kill must all be answered. In both cases a
subscriber on ZMQ and a control in this process note what they receive. The exit code is 1 if a frame was lost or
answered twice, a document differs from one with its uid, or a decision was carried out twice or not at all.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from recorded import RULES, Scans, record

from xas_agent.adapters.zmq import ControlServer, ZMQEndpoint, ZMQSink, ZMQSource
from xas_agent.agent.publish import events_of
from xas_agent.agent.types import Reply

FRAMES, RUNS = 150, 12
"""Whole spectra of a run, and runs, of a recording."""
RATE, LIVE_FRAMES = 40.0, 800
"""Frames per second, and whole spectra of a run, over ZMQ."""
CONFIG = """
model: {{use: [co-k], threads: 1}}
control: {{enabled: true, allow: [pause], max_age_s: 600, timeout_s: 30}}
control_endpoint: {{address: "ipc://{folder}/control"}}
publish: {{address: "{consumer}", connect_timeout_s: 60}}
"""


class Outside:
    """What is around the agent and outlives it: a control and a subscriber."""

    def __init__(self, folder: Path) -> None:
        self.carried_out: list[str] = []
        """Frames for which a decision was carried out."""
        self.documents: dict[str, tuple[str, Any]] = {}
        self.differing = 0
        """Number of documents that differ from one with their uid."""
        self._control = ControlServer(f"ipc://{folder}/control", self._obey)
        self._source = ZMQSource(ZMQEndpoint(address="zmq://127.0.0.1:0", bind=True))
        self._source.connect()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.config = folder / "config.yaml"
        self.config.write_text(RULES + CONFIG.format(folder=folder, consumer=self._source.address))

    def close(self) -> None:
        self._source.close()
        self._reader.join()
        self._control.close()

    def _obey(self, action: str, args: Mapping[str, Any]) -> Reply:
        self.carried_out.append(action)
        return Reply("acknowledged")

    def _read(self) -> None:
        for name, doc in events_alone(self._source):
            known = self.documents.setdefault(doc["uid"], (name, doc))
            self.differing += known[1] is not doc and str(known) != str((name, doc))


def events_alone(documents: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield documents, the Events of a page in its place: one that is sent again may be divided otherwise."""
    for name, doc in documents:
        if name == "event_page":
            yield from (("event", event) for event in events_of(doc))
        else:
            yield name, doc


@dataclass
class Life:
    """One process of the agent."""

    process: subprocess.Popen[str]
    began: float = field(default_factory=time.monotonic)
    ready: threading.Event = field(default_factory=threading.Event)
    ready_s: float = 0.0
    """Time from its start until it has resumed, s."""
    torch_s: float = 0.0
    """Time that importing torch took shortly before, s: the machine may have other work."""
    said: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, config: Path, source: str | None, out: Path) -> "Life":
        """Start an agent; without ``source``, with that of the config."""
        line = [sys.executable, "-m", "xas_agent", "run", "--config", str(config)]
        line += [] if source is None else ["--source", source]
        environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "250"}
        process = subprocess.Popen(
            [*line, "--out", str(out)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
        )
        life = cls(process)
        threading.Thread(target=life._listen, daemon=True).start()
        return life

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if "resumed" in line or "watching" in line or "partition taken" in line:
                self.ready_s = self.ready_s or time.monotonic() - self.began
                self.ready.set()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@dataclass
class Results:
    """What an output folder contains."""

    uids: Counter[str] = field(default_factory=Counter)
    frames: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Number and a value of each answered frame."""
    answers: Counter[str] = field(default_factory=Counter)
    decisions: list[tuple[str, str]] = field(default_factory=list)
    """Deciding frame and last status of each decision."""
    torn: int = 0
    """Number of runs whose Events are not numbered without gaps, or that have no stop."""

    @classmethod
    def of(cls, out: Path) -> "Results":
        results, streams, numbers, decisions = cls(), {}, Counter(), {}
        stopped = {}
        for line in (out / "documents.jsonl").read_text().splitlines():
            name, doc = json.loads(line)
            results.uids[doc["uid"]] += 1
            if name == "descriptor":
                streams[doc["uid"]] = doc["run_start"], doc["name"]
            elif name == "stop":
                stopped[doc["run_start"]] = doc["num_events"]
            elif name == "event":
                stream = streams[doc["descriptor"]]
                numbers[stream] += 1
                results.torn += doc["seq_num"] != numbers[stream]
                results._read(stream[1], doc["data"], decisions)
        results.torn += sum(stopped.get(run, {}).get(stream) != count for (run, stream), count in numbers.items())
        results.decisions = sorted(decisions.values())
        return results

    def _read(self, stream: str, data: dict[str, Any], decisions: dict[str, tuple[str, str]]) -> None:
        if stream == "descriptors":
            self.frames[data["frame_uid"]] = str(data["frame_seq_num"]), data["mean_bond_mean"]
            self.answers[data["frame_uid"]] += 1
        elif stream == "quality" and data["frame_seq_num"]:
            self.answers[data["uid"]] += 1
        elif stream == "decisions":
            decisions[data["id"]] = json.loads(data["evidence"])[-1][0], data["status"]


def import_s() -> float:
    """Return the time that Python takes to import torch, s."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.monotonic() - began


def live_until(
    start: Callable[[], Life],
    kills: int,
    rng: random.Random,
    *,
    after: Callable[[], None] = lambda: None,
    over: Callable[[], bool] = lambda: False,
) -> tuple[list[Life], int]:
    """Start lives and kill them until one ends by itself, or ``kills`` are killed; return them and the kills left.

    Parameters
    ----------
    start : starts a life
    kills, rng : number and moments of the kills
    after : called after each kill
    over : whether the last life has nothing left to do, so that it is not killed
    """
    lives: list[Life] = []
    torch_s = 0.0
    while True:
        torch_s = import_s() if len(lives) % 5 == 0 else torch_s
        life = start()
        life.torch_s = torch_s
        lives.append(life)
        if not kills or over():
            return lives, kills
        while not life.ready.wait(0.02) and life.process.poll() is None:
            if len(lives) > 1 and rng.random() < 0.001:  # some lives end while they begin
                break
        try:
            life.process.wait(rng.expovariate(2.0))
        except subprocess.TimeoutExpired:
            life.kill()
            after()
            kills -= 1
        else:
            return lives, kills


def from_a_file(kills: int, rng: random.Random, folder: Path, limit: float) -> dict[str, Any]:
    """Kill agents that read files of documents; compare with agents that nobody kills."""
    sums: Counter[str] = Counter()
    ready: list[float] = []
    number = 0
    while kills and time.monotonic() < limit:
        number += 1
        here = folder / f"file-{number}"
        here.mkdir()
        recording = here / "recording.msgpack"
        record(recording, rng.randrange(2**31), RUNS, FRAMES)
        with closing(Outside(here)) as outside:
            undisturbed = Life.start(outside.config, str(recording), here / "undisturbed")
            undisturbed.process.wait()
            expected, carried_out = Results.of(here / "undisturbed"), len(outside.carried_out)
            outside.documents.clear()
            outside.carried_out.clear()
            documents, whole = here / "out" / "documents.jsonl", here / "undisturbed" / "documents.jsonl"
            lives, left = live_until(
                partial(Life.start, outside.config, str(recording), here / "out"),
                kills,
                rng,
                over=partial(as_long, documents, whole),
            )
            code = lives[-1].process.wait()
            time.sleep(1.0)  # the last documents arrive
            found = Results.of(here / "out")
            ready += [life.ready_s - life.torch_s for life in lives[1:] if life.ready_s]
            sums += Counter(
                {
                    "kills": kills - left,
                    "frames": len(expected.answers),
                    "lost": len(expected.answers.keys() - found.answers.keys()),
                    "answered twice": sum(n > 1 for n in found.answers.values()),
                    "documents twice in the file": sum(n > 1 for n in found.uids.values()),
                    "lost at the subscriber": len(found.uids.keys() - outside.documents.keys()),
                    "differing documents": outside.differing,
                    "frames with another number or value": sum(
                        found.frames.get(uid, ("", 0.0))[0] != n or abs(found.frames[uid][1] - value) > 1e-4
                        for uid, (n, value) in expected.frames.items()
                    ),
                    "incomplete runs": found.torn,
                    "rows of the table": sum(1 for _ in (here / "out" / "descriptors.csv").open()) - 1,
                    "decisions": len(expected.decisions),
                    "decisions that differ": len(set(expected.decisions).symmetric_difference(found.decisions))
                    + abs(len(expected.decisions) - len(found.decisions)),
                    "requests carried out in excess": abs(len(outside.carried_out) - carried_out),
                    "failed ends": int(code != 0),
                }
            )
        kills = left
        if not any(sums[name] for name in FAULTS):
            shutil.rmtree(here)
        print(f"# {kills} kills left, {dict(sums)}", file=sys.stderr, flush=True)
    return {**sums, "kills left out (time limit)": kills} | {"times": ready}


def as_long(path: Path, other: Path) -> bool:
    """Whether a file is nearly as long as another, or longer."""
    return path.exists() and path.stat().st_size > 0.995 * other.stat().st_size


FAULTS = (
    "lost", "answered twice", "documents twice in the file", "lost at the subscriber", "differing documents",
    "frames with another number or value", "incomplete runs", "decisions that differ",
    "requests carried out in excess", "failed ends",
)  # fmt: skip


class Publisher:
    """Publishes runs of whole spectra over ZMQ until it is closed."""

    def __init__(self, seed: int) -> None:
        self._sink = ZMQSink(ZMQEndpoint(address="zmq://127.0.0.1:0", bind=True))
        self._sink.connect()
        self.address, self.sent, self._seed = self._sink.address, 0, seed
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        time.sleep(1.0)
        self._sink.close()

    def _work(self) -> None:
        self._sink.wait_for_subscriber()
        while not self._closing.is_set():
            self._seed += 1
            scans = Scans(self._seed, sample_name="cell")
            for name, doc in scans.begin():
                self._sink(name, doc)
            for _ in range(LIVE_FRAMES):
                self._sink(*scans.whole(time.time()))
                self.sent += 1
                if self._closing.wait(1 / RATE):
                    break
            self._sink(*scans.end())


def accepted(out: Path) -> set[str]:
    """Return the uids of the frames in a journal, which a killed agent left.

    Events of runs of which start and descriptor were missed cannot become frames.
    """
    from xas_agent.adapters.codecs import from_msgpack

    with tempfile.TemporaryDirectory() as folder:
        for path in out.glob("journal.sqlite*"):
            shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder) / "journal.sqlite")) as file:
            sql = "SELECT doc FROM inputs WHERE name = 'event' AND run != ''"
            events = [from_msgpack(doc) for (doc,) in file.execute(sql)]
    return {event["uid"] for event in events}


def over_zmq(kills: int, rng: random.Random, folder: Path) -> dict[str, Any]:
    """Kill agents that listen to ZMQ."""
    here = folder / "zmq"
    here.mkdir()
    out, known = here / "out", set()
    with closing(Outside(here)) as outside:
        publisher = Publisher(rng.randrange(2**31))
        lives, left = live_until(
            lambda: Life.start(outside.config, publisher.address, out),
            kills,
            rng,
            after=lambda: known.update(accepted(out) if (out / "journal.sqlite").exists() else ()),
        )
        lives[-1].ready.wait(60)
        publisher.close()
        lives[-1].process.send_signal(signal.SIGTERM)
        code = lives[-1].process.wait()
        time.sleep(1.0)
        found = Results.of(out)
    return {
        "kills": kills - left,
        "frames sent": publisher.sent,
        "frames": len(found.answers),
        "accepted at a kill": len(known),
        "lost": len(known - found.answers.keys()),
        "answered twice": sum(n > 1 for n in found.answers.values()),
        "documents twice in the file": sum(n > 1 for n in found.uids.values()),
        "lost at the subscriber": len(found.uids.keys() - outside.documents.keys()),
        "differing documents": outside.differing,
        "incomplete runs": found.torn,
        "decisions": len(found.decisions),
        "decisions that differ": sum(status != "acknowledged" for _, status in found.decisions),
        "requests carried out in excess": abs(len(outside.carried_out) - len(found.decisions)),
        "failed ends": int(code != 0),
        "times": [life.ready_s - life.torch_s for life in lives[1:] if life.ready_s],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="kills of agents that read a file")
    parser.add_argument("--zmq", type=int, default=50, help="kills of agents that listen to ZMQ")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=7200.0, help="time after which no new recording is begun, s")
    parser.add_argument("--folder", type=Path, help="keep the output folders here")
    options = parser.parse_args()
    rng, failed = random.Random(options.seed), False
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for source, figures in (
            ("a file", from_a_file(options.kills, rng, folder, time.monotonic() + options.limit)),
            ("ZMQ", over_zmq(options.zmq, rng, folder) if options.zmq else {}),
        ):
            times = np.array(figures.pop("times", []))
            print(f"\nfrom {source}")
            for name, value in figures.items():
                print(f"{name:45} {value}")
            if times.size:
                p50, p95 = np.percentile(times, [50, 95])
                print(f"{'recovery beyond importing torch, p50, p95, s':45} {p50:.2f} {p95:.2f}")
            failed |= any(figures.get(name) for name in FAULTS) or (
                bool(figures.get("kills")) and not figures["frames"]
            )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
