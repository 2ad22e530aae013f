"""The sessions that a dashboard shows."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from shown_session import written

from xas_agent.app.view.history import History
from xas_agent.app.view.sessions import Sessions, Shown


def test_who_asks_for_a_state_while_another_asks_gets_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = written(tmp_path / "night1")
    sessions, shown = Sessions([folder]), Shown("night1", folder, History(folder))
    asked, answer = threading.Event(), threading.Event()

    def status(_: Path) -> None:
        asked.set()
        assert answer.wait(60)

    monkeypatch.setattr(sessions.links, "status", status)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(sessions.state, shown)
        assert asked.wait(60)
        second = threads.submit(sessions.state, shown)
        answer.set()
        assert first.result(60)["pending"] == second.result(60)["pending"] == []


def test_an_ended_session_tells_what_its_rules_judged_last(tmp_path: Path):
    folder = written(tmp_path / "night1")
    sessions, shown = Sessions([folder]), Shown("night1", folder, History(folder))
    assert sessions.state(shown)["rules"] == []
    rule = {"name": "half", "quantity": "OS", "value": 3.51, "level": 3.5, "distance": -0.01, "unit": "e"}
    (folder / "summary.json").write_text(json.dumps({"frames": 5, "rules": [rule]}))
    shown.asked_at = float("-inf")
    assert sessions.state(shown)["rules"] == [rule]
