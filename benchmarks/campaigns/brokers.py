"""Share runs among agents that are killed and added, over NATS or Kafka, and print what became of each frame.

    python benchmarks/campaigns/brokers.py [--broker nats|kafka] [--agents 8] [--kills 20] [--limit 3600] [--out DIR]

Runs of whole spectra with a slow step scan beside them are published, several at a time. Agents of one group answer
them, each with a folder of its own, and publish to the same broker. A random one is killed and another added,
``--kills`` times; some are ended by SIGTERM instead, and some go on in the folder of the one before. The answers are
then read from the broker. The exit code is 1 if a frame was not answered exactly once, or if a folder has one twice.
"""

import csv
import itertools
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from common import parser_of, report
from kills import Life
from recorded import STEP_POINTS, Scans

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from kafka_cluster import Cluster
from nats_server import Server

from xas_agent.adapters.kafka import KafkaDestination, KafkaShared, KafkaSink, KafkaSource
from xas_agent.adapters.nats import NATSDestination, NATSShared, NATSSink, NATSSource

TOGETHER = 8
"""Number of runs that are published at a time."""
RUN_FRAMES, RATE = 40, 20.0
"""Number of whole spectra of a run, and of spectra per second."""
PARTITIONS = 16
SETTLE_S = 300.0
"""Longest wait for the last answers, s."""
CONFIG = """
model: {{use: [co-k], threads: 1}}
{key}: {source}
publish: {{{key}: {publish}}}
"""


class NATS:
    """A NATS server with a stream of documents and one of answers."""

    def __init__(self, folder: Path) -> None:
        self.server = Server(folder)
        for name in ("docs", "answers"):
            self.server.make_stream(name, name)
        self._docs, self._answers = f"{self.server.address}/docs", f"{self.server.address}/answers"
        self.sink = NATSSink(NATSDestination(address=self._docs, partitions=PARTITIONS))

    def config(self) -> str:
        source = f'{{address: "{self._docs}", partitions: {PARTITIONS}, begin: all, lease_s: 10}}'
        return CONFIG.format(key="nats", source=source, publish=f'"{self._answers}"')

    def answers(self) -> NATSSource:
        return NATSSource(NATSShared(address=self._answers, group="count", begin="all"))

    def deleted(self) -> int:
        """Return the number of answers that the stream does not have any more."""
        return 0

    def close(self) -> None:
        self.sink.close()
        self.server.kill()


class Kafka:
    """A mock cluster with a topic of documents and one of answers.

    Its partitions keep 5 MB, and agents know answered frames by the topic: so answers have no spectra, and many
    partitions.
    """

    def __init__(self, folder: Path) -> None:
        cluster = self.cluster = Cluster()
        self._docs = cluster.make_topic("docs", PARTITIONS)
        self._answers = cluster.make_topic("answers", PARTITIONS)
        self.sink = KafkaSink(KafkaDestination(address=self._docs))

    def config(self) -> str:
        source = f'{{address: "{self._docs}", begin: all, lease_s: 8}}'
        config = CONFIG.format(key="kafka", source=source, publish=f'"{self._answers}"')
        return config + "serving: {spectra: false, measured: false}\n"

    def answers(self) -> KafkaSource:
        return KafkaSource(KafkaShared(address=self._answers, group="count", begin="all"))

    def deleted(self) -> int:
        """Return the number of answers that the topic does not have any more."""
        return self.cluster.deleted("answers", PARTITIONS)

    def close(self) -> None:
        self.sink.close()


class Publisher:
    """Publishes interleaved runs on a thread until it is closed."""

    def __init__(self, sink: Callable[..., Any], seed: int) -> None:
        self.frames: list[str] = []
        """Uids of the frames that were published."""
        self.runs = 0
        self._sink, self._seed = sink, seed
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _work(self) -> None:
        open_runs: list[tuple[Scans, itertools.count[int], Iterator[Any]]] = []
        while open_runs or not self._closing.is_set():
            if len(open_runs) < TOGETHER and not self._closing.is_set():
                self.runs += 1
                scans = Scans(self._seed + self.runs, sample_name=f"cell {self.runs}")
                for document in scans.begin():
                    self._sink(*document)
                open_runs.append((scans, itertools.count(1), scans.step(time.time())))
            for scans, numbers, points in list(open_runs):
                name, doc = scans.whole(time.time())
                self._sink(name, doc)
                self.frames.append(doc["uid"])
                for document in itertools.islice(points, STEP_POINTS // RUN_FRAMES):
                    self._sink(*document)
                if next(numbers) >= RUN_FRAMES + 7 * (self.runs % 5) or self._closing.is_set():
                    for document in points:
                        self._sink(*document)
                    self._sink(*scans.end())
                    open_runs.remove((scans, numbers, points))
                time.sleep(1 / RATE)


class Answers:
    """Counts the answers to each frame on a thread."""

    def __init__(self, source: Any) -> None:
        self.frames: Counter[str] = Counter()
        self.said: dict[str, list[str]] = {}
        """When each answer came, and in which stream, by frame."""
        self._source, self._streams = source, dict[str, str]()
        self._source.connect()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._source.close()
        self._thread.join()
        self._source.release()

    def _work(self) -> None:
        for name, doc in self._source:
            if name == "descriptor":
                self._streams[doc["uid"]] = doc["name"]
            elif name == "event":
                stream, data = self._streams[doc["descriptor"]], doc["data"]
                if stream == "descriptors":
                    self._count(data["frame_uid"], doc)
                elif stream == "quality" and data["frame_seq_num"]:
                    self._count(data["uid"], doc)

    def _count(self, frame: str, doc: dict[str, Any]) -> None:
        self.frames[frame] += 1
        self.said.setdefault(frame, []).append(f"{doc['descriptor'][:8]} at {time.time():.2f}")


def count_repeated(table: Path) -> int:
    """Return the number of rows beyond the first of each frame."""
    with table.open(encoding="utf-8") as file:
        rows = Counter((row["run_uid"], row["seq_num"]) for row in csv.DictReader(file))
    return rows.total() - len(rows)


def campaign(broker: Any, agents: int, kills: int, seed: int, folder: Path, limit_s: float) -> dict[str, Any]:
    """Kill and add agents; return the figures."""
    rng, until = random.Random(seed), time.monotonic() + limit_s
    config = folder / "config.yaml"
    config.write_text(broker.config())
    numbers = itertools.count()
    lives: list[tuple[Life, Path]] = []
    failed: list[str] = []

    def add(out: Path | None = None) -> None:
        out = out or folder / f"agent-{next(numbers)}"
        life = Life.start(config, None, out)
        lives.append((life, out))
        life.ready.wait(120)

    def end(life: Life) -> None:
        life.process.send_signal(signal.SIGTERM)
        if code := life.process.wait():
            failed.append(f"code {code}: {''.join(life.said[-20:])}")

    for _ in range(agents):
        add()
    publisher, counted, done = Publisher(broker.sink, seed), Answers(broker.answers()), Counter[str]()
    while done["killed"] + done["ended"] < kills and time.monotonic() < until:
        time.sleep(rng.uniform(1.0, 5.0))
        life, out = lives.pop(rng.randrange(len(lives)))
        if rng.random() < 0.75:
            life.kill()
            done["killed"] += 1
        else:
            end(life)
            done["ended"] += 1
        goes_on = rng.random() < 0.4
        done["of them began again in their folders"] += goes_on
        add(out if goes_on else None)
    publisher.close()
    wait_until = time.monotonic() + SETTLE_S
    while time.monotonic() < wait_until and len(counted.frames) < len(publisher.frames) + publisher.runs:
        time.sleep(0.5)
    time.sleep(2.0)  # what comes twice
    for life, _ in lives:
        end(life)
    failed_ends = len(failed)
    failed += [f"{frame}: {', '.join(counted.said[frame])}" for frame, n in counted.frames.items() if n > 1][:40]
    for said in failed:
        print(said, file=sys.stderr)
    counted.close()
    sent = set(publisher.frames)
    return {
        **done,
        "runs": publisher.runs,
        "frames": len(sent),
        "answered": len(sent & counted.frames.keys()),
        "lost": len(sent - counted.frames.keys()),
        "answered twice": sum(n > 1 for n in counted.frames.values()),
        "step scans": len(steps := counted.frames.keys() - sent),
        "step scans lost or doubled": abs(publisher.runs - len(steps)),
        "frames twice in a folder": sum(map(count_repeated, folder.glob("*/descriptors.csv"))),
        "failed ends": failed_ends,
        "answers that the broker deleted": broker.deleted(),
        "kills left out (time limit)": kills - done["killed"] - done["ended"],
    }


def main() -> None:
    parser = parser_of(__doc__, 3600.0, "time after which no agent is killed any more, s")
    parser.add_argument("--broker", choices=("nats", "kafka"), default="nats")
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--kills", type=int, default=20, help="agents that are killed or ended, and replaced")
    parser.add_argument("--out", type=Path, help="folder that keeps the agents' folders")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.out or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        with closing((NATS if options.broker == "nats" else Kafka)(folder)) as broker:
            figures = campaign(broker, options.agents, options.kills, options.seed, folder, options.limit)
    problems = (
        "lost", "answered twice", "step scans lost or doubled", "frames twice in a folder", "failed ends",
        "answers that the broker deleted", "kills left out (time limit)",
    )  # fmt: skip
    report(figures, {name: figures[name] for name in problems} | {"no frame": not figures["frames"]})


if __name__ == "__main__":
    main()
