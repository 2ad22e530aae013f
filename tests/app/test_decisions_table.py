"""What a session leaves of a decision that a person confirmed, and of a notification that nobody took."""

import csv
import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from damaged_documents import cobalt_points
from deadline import wait_until
from forked import run_command
from made_runs import Made

from xas_agent.adapters.health_settings import HealthSettings
from xas_agent.agent.types import Reply
from xas_agent.app.ask import ask
from xas_agent.app.config import load_config
from xas_agent.app.health import Health
from xas_agent.app.output.folder import OutputFolder
from xas_agent.app.session import Session

RULE = {"name": "high", "trigger": {"kind": "threshold", "quantity": "OS", "above": 1.0}}
CONFIG = {"model": {"use": ["co-k"], "threads": 1}}


class Beamline:
    """A control that carries everything out."""

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        return Reply("acknowledged", "done")

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def own_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def measure(session: Session) -> None:
    made = Made(element="Co")
    made.event("primary", True, *cobalt_points(), 100.0)
    for name, doc in made.stop().docs:
        session.agent(name, doc)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "decisions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_confirmed_decision_is_one_row_of_the_table(tmp_path: Path) -> None:
    out = tmp_path / "out"
    asking = {"rules": [{**RULE, "action": "stop"}], "control": {"enabled": True, "allow": ["stop"]}}
    asking["control"]["authority"] = "confirm"
    output = OutputFolder(out)
    with Session(load_config(CONFIG | asking), output, Beamline()) as session:
        measure(session)
        wait_until(lambda: len(ask("pending")["pending"]) == 1)
        output._tables.write()
        assert rows(out) == []  # it waits
        ask("approve", by="ada")
        assert session.agent.wait(60)
    [row] = rows(out)
    assert (row["action"], row["status"], row["status_reason"]) == ("stop", "acknowledged", "done")
    assert (row["proposed_by"], row["approved_by"], row["settled_by"]) == ("", "ada", "")
    times = [float(row[f"{step}_at"]) for step in ("proposed", "approved", "sent", "settled")]
    assert times == sorted(times)
    assert json.loads((out / "summary.json").read_text())["decisions"] == 1
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(out / "documents.jsonl", again)
    run_command("rebuild", again, code=0)
    assert (again / "decisions.csv").read_bytes() == (out / "decisions.csv").read_bytes()


def test_a_notification_that_nobody_takes_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as closed:  # bound, and not listening
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        telling = {"rules": [RULE], "notify": [{"webhook": f"http://127.0.0.1:{port}/hook"}]}
        health = Health(HealthSettings(address="127.0.0.1:0"))
        with Session(load_config(CONFIG | telling), OutputFolder(tmp_path / "out"), health=health) as session:
            measure(session)
            assert session.agent.wait(60)
            wait_until(lambda: session.recorder.notifications_failed == 1)
            said = run_command("status", "--session", os.getpid()).stdout
            assert "NOTIFY     1 failed; the latest: webhook 127.0.0.1: cannot be reached" in said
            [metric] = [m for m in health.collect() if m.name == "xas_agent_notifications_failed"]
            assert metric.samples[0].value == 1
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["notifications_failed"] == 1
    assert [r.levelname for r in caplog.records if "notification failed" in r.getMessage()] == ["WARNING"]
