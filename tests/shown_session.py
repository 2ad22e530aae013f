"""The folder of a session as an agent writes it, and a dashboard that shows folders in a process of its own."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
from deadline import wait_until
from forked import command

from xas_agent.adapters.files import FileSink
from xas_agent.agent.publish import AgentRun, Provenance
from xas_agent.agent.types import Decision, DescriptorEstimate, Estimate, Frame, Lines, Reason, Scan, SetAside, nodes
from xas_agent.app.output.folder import Tables
from xas_agent.app.output.kept import Alarm

GRID = np.linspace(-9, 98, 12)
ENERGY = np.linspace(7600, 8000, 40)
PROBABILITIES = {"2": 0.1, "3": 0.6, "4": 0.3}
DECISION = Decision("id-1", "half", "stop", "OS 3.52 e", "w", 3.0, 0.9, (("f2", 3.52),), scan=Scan("cell", "LiCoO2"))


class Written:
    """A session that writes its documents, and the tables beside them.

    Parameters
    ----------
    folder : it is made
    spectra : whether it publishes aligned spectra
    """

    def __init__(self, folder: Path, *, sample: str = "LiCoO2", measured: bool = True) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self._measured = folder, measured
        self._sink = FileSink(folder / "documents.jsonl", append=True)
        self._tables = Tables(folder, Alarm(folder))
        self._scan = Scan("cell", sample, 7, "run.dat")
        provenance = Provenance("co-k", "a" * 64, "b" * 64, {"numpy": "2"}, "Co", "K", units={"OS": "e"}, grid=GRID)
        self.run = AgentRun({"uid": "w", "time": 0.5}, provenance, self._emit, scan=self._scan)
        self.frames = 0

    def _emit(self, name: str, doc: dict[str, Any]) -> None:
        self._sink(name, doc)
        self._tables.recorder(name, doc)

    def frame(self, **readings: float) -> None:
        """Publish one more frame, whose number is in its values."""
        self.frames = n = self.frames + 1
        mu = np.linspace(0.1, 1.1, len(ENERGY)) + n
        os = DescriptorEstimate(3 + n / 100, 2.9, 3.4, 3.0, 0.6, PROBABILITIES, 0.01)
        estimate = Estimate({"OS": os}, 0.2 if n % 2 else float("nan"))
        frame = Frame(f"f{n}", "w", n, float(n), ENERGY, mu, mu / 2, scan=self._scan, readings=readings)
        picked = mu[nodes(len(ENERGY))]
        lines = Lines(picked - 0.5, picked + 0.5, 7720.5, 7709.25) if self._measured else None
        quantities = {"e0_ev": 7721.0, "edge_step": 0.9, "noise": 0.004}
        self.run.frame(frame, quantities, estimate, GRID * n, 4.5, lines)

    def decide(self, *statuses: str) -> None:
        """Publish a decision that comes to these statuses, the last one by a person."""
        for n, status in enumerate(statuses, 1):
            by = "ada" if n == len(statuses) > 1 else ""
            now = replace(DECISION, status=status, status_reason="", by=by, status_time=10.0 + n)  # pyright: ignore
            self.run.decision(now)

    def end(self) -> Path:
        """Set a frame aside, end the run, and return the folder."""
        self.run.set_aside(SetAside("w", "f9", 9.0, Reason.TOO_FEW_POINTS, "found 3 points", 9))
        self.run.close()
        self._tables.close()
        self._sink.close()
        return self.folder


def written(folder: Path, frames: int = 5, **options: Any) -> Path:
    """Write a session that has ended."""
    session = Written(folder, **options)
    for _ in range(frames):
        session.frame(voltage=3.9)
    session.decide("proposed", "sent", "acknowledged")
    return session.end()


@dataclass(frozen=True)
class Shown:
    """A dashboard in another process."""

    port: int
    token: str
    process: "subprocess.Popen[str]"

    def ask(
        self, path: str, method: str = "GET", body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of an answer."""
        link = HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and "Content-Type" not in sent:
            body, sent["Content-Type"] = json.dumps(body), "application/json"
        try:
            link.request(method, path, body, sent)
            answer = link.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            link.close()

    def json(self, path: str, **headers: str) -> Any:
        """Return what an endpoint answers with 200."""
        status, _, body = self.ask(path, **headers)
        assert status == 200, body
        return json.loads(body)

    def order(self, session: str, **order: str) -> tuple[int, Any]:
        """Give an order with the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        status, _, body = self.ask(f"/api/sessions/{session}/orders", "POST", order, **headers)
        return status, json.loads(body)

    @contextmanager
    def events(self, session: str, **headers: str) -> "Iterator[Iterator[tuple[int, str, Any]]]":
        """Yield the events of a session: number, name and data."""
        link = HTTPConnection("127.0.0.1", self.port, timeout=60)
        link.request(
            "GET", f"/api/sessions/{session}/events", headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = link.getresponse()
        assert answer.status == 200, answer.read()

        def read() -> Iterator[tuple[int, str, Any]]:
            fields: dict[str, str] = {}
            while line := answer.readline():
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif fields:
                    if "data" in fields:
                        yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                    fields = {}

        try:
            yield read()
        finally:
            link.close()


@contextmanager
def shown(*args: object) -> Iterator[Shown]:
    """Run ``xas-agent view`` until the block ends."""
    line, environment = command("view", *args), {**os.environ, "COLUMNS": "250"}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout
        told = process.stdout.readline()
        assert told.startswith("dashboard "), (told, process.stderr and process.stderr.read())
        address, _, token = told.split()[1].partition("?token=")
        yield Shown(int(address.rstrip("/").rpartition(":")[2]), token, process)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def settled(shown: Shown, session: str, frames: int) -> None:
    """Wait until a dashboard has a number of frames."""
    wait_until(lambda: len(shown.json(f"/api/sessions/{session}/frames")) == frames)
