"""Kill the proxy, the Tiled server and the control of a running agent, again and again; print what it did.

    python benchmarks/campaigns/outages.py [--kills 50] [--seed 0] [--limit 3600] [--folder DIR]

A publisher sends runs of whole spectra through a bluesky proxy, and writes them to a Tiled catalogue, which the agent
uses beside the proxy. One of the three is killed at random moments and started again after up to 3 s. The exit code
is 1 if a frame is neither answered nor counted, or is answered twice, if a frame that the catalogue has is not
answered, or if a decision was carried out twice.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from common import parser_of, report
from recorded import RULES, Scans

from xas_agent.adapters.zmq import ZMQEndpoint, ZMQSink

RATE = 5.0
"""Frames per second."""
RUN_FRAMES = 100
KEY = "campaign"
CONFIG = """
model: {{use: [co-k], threads: 1}}
source: {{address: "{source}"}}
tiled: {{uri: "{tiled}", poll_s: 0.5, fill_s: 8}}
control: {{enabled: true, allow: [pause], max_age_s: 60, timeout_s: 10}}
control_endpoint: {{address: "ipc://{folder}/control"}}
"""
PROXY = """
import sys
from bluesky.callbacks.zmq import Proxy
Proxy(*(f"127.0.0.1:{port}" for port in sys.argv[1:])).start()
"""
CONTROL = """
import signal, sys
from xas_agent.adapters.zmq import ControlServer
from xas_agent.agent.types import Reply
def obey(action, args):
    with open(sys.argv[2], "a") as file:
        print(action, file=file)
    return Reply("acknowledged")
server = ControlServer(sys.argv[1], obey)
signal.pause()
"""


class Peer:
    """A process that is killed and started again."""

    def __init__(self, name: str, line: list[Any], ready: Callable[[], bool]) -> None:
        self.name, self._line, self._ready = name, [sys.executable, *map(str, line)], ready
        self.kills = 0
        self.start()

    def start(self) -> None:
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(self._line, stdout=quiet, stderr=quiet)
        while not self._ready():
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} ended at once: {' '.join(self._line)}")
            time.sleep(0.05)

    def kill(self, away_s: float) -> None:
        self.kills += 1
        self.end()
        time.sleep(away_s)
        self.start()

    def end(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def free_port() -> int:
    """Return a port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Publisher:
    """Sends runs to a proxy and writes them to a catalogue, while ``catalogue`` is free."""

    def __init__(self, proxy: str, tiled: str, seed: int) -> None:
        from bluesky_tiled_plugins import TiledWriter
        from tiled.client import from_uri

        self._writer = TiledWriter(from_uri(tiled, api_key=KEY), batch_size=1)
        self._sink = ZMQSink(ZMQEndpoint(address=proxy, connect_timeout_s=30))
        self._sink.connect()
        self._seed = seed
        self.catalogue = threading.Lock()
        """Held by the writer for each document, and by whoever stops the server, so that no document is torn."""
        self.sent: dict[str, int] = {}
        """Number of frames of each run."""
        self.failure: Exception | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure
        self._sink.close()

    def _send(self, name: str, doc: Any) -> None:
        self._sink(name, doc)
        with self.catalogue:
            self._writer(name, doc)

    def _work(self) -> None:
        try:
            self._publish()
        except Exception as error:
            self.failure = error

    def _publish(self) -> None:
        while not self._closing.is_set():
            self._seed += 1
            scans = Scans(self._seed, sample_name="cell")
            for name, doc in scans.begin():
                self._send(name, dict(doc))
            for number in range(1, RUN_FRAMES + 1):
                self._send(*scans.whole(time.time()))
                self.sent[scans.uid] = number
                if self._closing.wait(1 / RATE):
                    break
            self._send(*scans.end())


def answers(out: Path) -> tuple[Counter[tuple[str, str]], Counter[str], int]:
    """Return how often each frame (run, number) was answered, what was counted instead, and the decisions."""
    runs, streams = {}, {}
    answered: Counter[tuple[str, str]] = Counter()
    counted: Counter[str] = Counter()
    decisions: dict[str, str] = {}
    for line in (out / "documents.jsonl").read_text().splitlines():
        name, doc = json.loads(line)
        if name == "start":
            runs[doc["uid"]] = doc["parent_uid"]
        elif name == "descriptor":
            streams[doc["uid"]] = doc["name"], runs[doc["run_start"]]
        elif name == "event":
            stream, run = streams[doc["descriptor"]]
            if stream == "descriptors":
                answered[
                    run, f"{doc['data']['time']:.6f}" if "time" in doc["data"] else doc["data"]["frame_uid"]
                ] += 1
            elif stream == "quality":
                counted[doc["data"]["reason"]] += doc["data"]["count"]
            elif stream == "decisions":
                decisions[doc["data"]["id"]] = doc["data"]["status"]
    return answered, counted, sum(status == "acknowledged" for status in decisions.values())


def campaign(
    kills: int, seed: int, limit_s: float, folder: Path, stack: ExitStack
) -> tuple[dict[str, Any], dict[str, int]]:
    """Kill peers; return the figures and the problems. ``stack`` ends what was started."""
    rng, began = random.Random(seed), time.monotonic()
    ports = [free_port() for _ in range(3)]
    database, carried_out = folder / "catalogue.db", folder / "carried_out"
    carried_out.touch()
    subprocess.run([sys.executable, "-m", "tiled", "catalog", "init", database], check=True, capture_output=True)
    tables = f"duckdb:///{folder / 'tables.duckdb'}"
    server = ["-m", "tiled", "serve", "catalog", database, "--write", folder / "files", "--write", tables]
    server += ["--api-key", KEY, "--host", "127.0.0.1", "--port", ports[2]]
    control = folder / "control"
    peers = [
        Peer("proxy", ["-c", PROXY, *ports[:2]], lambda: listens(ports[0]) and listens(ports[1])),
        Peer("Tiled", server, lambda: listens(ports[2])),
        Peer("control", ["-c", CONTROL, f"ipc://{control}", carried_out], control.exists),
    ]
    for peer in peers:
        stack.callback(peer.end)
    publisher = Publisher(f"zmq://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[2]}", seed)
    config = folder / "config.yaml"
    addresses = {"source": f"zmq://127.0.0.1:{ports[1]}", "tiled": f"tiled://127.0.0.1:{ports[2]}", "folder": folder}
    config.write_text(RULES + CONFIG.format(**addresses))
    log = (folder / "agent.log").open("w")
    line = [sys.executable, "-m", "xas_agent", "run", "--config", config, "--out", folder / "out"]
    agent = subprocess.Popen(line, stderr=log, stdout=log, env={**os.environ, "TILED_API_KEY": KEY, "COLUMNS": "250"})
    stack.callback(agent.kill)
    while "watching" not in (folder / "agent.log").read_text():
        if publisher.failure is not None or agent.poll() is not None:
            raise RuntimeError((folder / "agent.log").read_text()) from publisher.failure
        time.sleep(0.2)
    while sum(peer.kills for peer in peers) < kills and time.monotonic() - began < limit_s:
        time.sleep(rng.uniform(0.5, 4.0))
        peer = rng.choice(peers)
        with publisher.catalogue:  # the writer of the catalogue waits; that of the proxy does not
            peer.kill(rng.uniform(0.1, 3.0)) if peer.name == "Tiled" else None
        if peer.name != "Tiled":
            control.unlink(missing_ok=True) if peer.name == "control" else None
            peer.kill(rng.uniform(0.1, 3.0))
    publisher.close()
    time.sleep(15.0)  # what is lost may be looked for until then
    agent.send_signal(signal.SIGTERM)
    code = agent.wait(60)
    answered, counted, acknowledged = answers(folder / "out")
    summary = json.loads((folder / "out" / "summary.json").read_text())
    sent = sum(publisher.sent.values())
    done = len(carried_out.read_text().splitlines())
    figures = {f"kills of the {peer.name}": peer.kills for peer in peers} | {
        "runs": len(publisher.sent),
        "frames sent": sent,
        "frames answered": len(answered),
        "notes": dict(counted),
        "in the summary": {key: summary[key] for key in ("frames", "frames_set_aside", "gaps", "unanswered")},
        "decisions acknowledged, carried out": f"{acknowledged} {done}",
        "time, s": round(time.monotonic() - began),
    }
    return figures, {
        "frames answered twice": sum(number > 1 for number in answered.values()),
        "frames neither answered nor counted": max(0, sent - len(answered) - sum(counted.values())),
        "frames that the catalogue has and nobody answered": sent - len(answered),
        "decisions acknowledged and not carried out": max(0, acknowledged - done),
        "the agent failed": int(code != 0),
        "kills left out (time limit)": kills - sum(peer.kills for peer in peers),
    }


def main() -> None:
    parser = parser_of(__doc__, 3600.0, "time after which nothing more is killed, s")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--folder", type=Path, help="keep the files here, in a new folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report(*campaign(options.kills, options.seed, options.limit, folder, stack))


if __name__ == "__main__":
    main()
