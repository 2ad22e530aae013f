"""Which sessions a dashboard shows, and what it says of them."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from deadline import wait_until
from shown_session import Written, written
from watched import WhiteLine

from xas_agent import XASAgent
from xas_agent.app.ask import identity_file, running_sessions
from xas_agent.app.config import Config
from xas_agent.app.operator import OperatorServer
from xas_agent.app.view import link
from xas_agent.app.view.history import History
from xas_agent.app.view.sessions import Sessions, Shown


@pytest.fixture
def look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xas_agent.app.view.sessions._NEW_FOLDERS_S", -1.0)


def ids(sessions: Sessions) -> list[str]:
    return [shown.id for shown in sessions.all()]


@pytest.mark.usefixtures("look_at_once")
def test_a_folder_that_gets_sessions_shows_them_the_newest_first(tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    sessions = Sessions([out])
    assert ids(sessions) == ["out"], "the folder of a session that has not begun to write"
    written(out / "2026-11-27T101500")
    assert ids(sessions) == ["2026-11-27T101500"]
    written(out / "2026-11-28T101500")
    assert ids(sessions) == ["2026-11-28T101500", "2026-11-27T101500"]


@pytest.mark.usefixtures("look_at_once")
def test_folders_of_one_name_keep_their_ids_in_any_order(tmp_path: Path):
    folders = [tmp_path / parent / "my cell" for parent in ("a", "b")]
    for folder in folders:
        folder.parent.mkdir()
        written(folder)
    first, second = ids(Sessions(folders))
    assert first.startswith("my-cell-")
    assert first != second
    assert ids(Sessions(folders[::-1])) == [second, first]
    later = Sessions([folders[0], tmp_path / "c"])
    assert ids(later) == ["my-cell", "c"]
    (tmp_path / "c").mkdir()
    written(tmp_path / "c" / "my cell")
    assert ids(later)[0] == "my-cell"
    assert ids(later)[1].startswith("my-cell-")


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


@contextmanager
def reachable(folder: Path) -> Iterator[XASAgent]:
    """Run an agent that says it writes into a folder."""
    agent = XASAgent(Config(), [WhiteLine("Co")])
    about = {"connected": True, "last_frame_age_s": 1.0}
    server = OperatorServer(agent, lambda: {"out": str(folder)}, lambda: about, None)
    server.start()
    yield agent
    server.close()
    agent.close()


@pytest.mark.usefixtures("own_sockets")
def test_a_busy_agent_has_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(link, "_STATUS_S", 0.2)
    monkeypatch.setattr("xas_agent.app.view.sessions._STATE_S", 0.0)
    folder = written(tmp_path / "night1")
    sessions, shown, go_on = Sessions([folder]), Shown("night1", folder, History(folder)), threading.Event()
    with reachable(folder) as agent:
        assert sessions.state(shown)["answers"] is True
        with ThreadPoolExecutor(1) as threads:
            busy = threads.submit(agent.perform, lambda _: go_on.wait(60), 60)
            wait_until(lambda: not sessions.state(shown)["answers"])
            state = sessions.state(shown)
            assert (state["live"], state["connected"]) == (True, True)
            assert state["last_frame_age_s"] > 1.0
            assert "does not answer" in state["message"]
            go_on.set()
            assert busy.result(60)
        assert sessions.state(shown)["answers"] is True
    wait_until(lambda: not sessions.state(shown)["live"])
    assert sessions.links.status(folder) is None


@pytest.mark.usefixtures("own_sockets")
def test_a_frozen_process_keeps_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(link, "_LOOK_S", 0.0)
    monkeypatch.setattr("xas_agent.app.ask._IDENTITY_S", 0.1)
    links = link.Links()
    with reachable(tmp_path):
        [found] = running_sessions()
        assert links.of(tmp_path) is not None
        said = identity_file(found.socket).read_bytes()
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(found.socket))
        frozen.listen(16)
        assert links.of(tmp_path) is not None
        assert link.Links().of(tmp_path) is None, "nobody knows what it writes"
        identity_file(found.socket).write_bytes(said)
        assert link.Links().of(tmp_path) is not None, "a dashboard that begins now finds it too"
    assert links.of(tmp_path) is None
    assert not identity_file(found.socket).exists()


def test_a_killed_session_has_not_ended_properly(tmp_path: Path):
    session = Written(tmp_path / "night1")
    session.frame()
    shown = Shown("night1", session.folder, History(session.folder))
    shown.history.update()
    assert "has no end" in Sessions([session.folder]).state(shown)["message"]
    session.end()


def test_an_ended_session_tells_what_its_rules_judged_last(tmp_path: Path):
    folder = written(tmp_path / "night1")
    sessions, shown = Sessions([folder]), Shown("night1", folder, History(folder))
    assert sessions.state(shown)["rules"] == []
    rule = {"name": "half", "quantity": "OS", "value": 3.51, "level": 3.5, "distance": -0.01, "unit": "e"}
    shown.history.update()
    frames = shown.history.frames
    for of, rules in ((frames - 1, []), (frames, [rule])):  # a summary of fewer frames was written before the end
        (folder / "summary.json").write_text(json.dumps({"frames": of, "rules": [rule]}))
        shown.asked_at = float("-inf")
        assert sessions.state(shown)["rules"] == rules
