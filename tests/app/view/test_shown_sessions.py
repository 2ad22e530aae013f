"""Which sessions a dashboard shows, and what it says of one that runs."""

import json
import socketserver
import threading
from pathlib import Path

import pytest
from shown_session import written

from xas_agent.app.ask import sockets_folder
from xas_agent.app.view import sessions as module
from xas_agent.app.view.link import Links
from xas_agent.app.view.sessions import Sessions

pytestmark = pytest.mark.usefixtures("own_sockets")


@pytest.fixture(autouse=True)
def look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NEW_FOLDERS_S", -1.0)


def ids(sessions: Sessions) -> list[str]:
    return [shown.id for shown in sessions.all()]


def test_a_folder_that_gets_sessions_shows_them_the_newest_first(tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    sessions = Sessions([out])
    assert ids(sessions) == ["out"], "the folder of a session that has not begun to write"
    written(out / "2026-11-27T101500")
    assert ids(sessions) == ["2026-11-27T101500"]
    written(out / "2026-11-28T101500")
    assert ids(sessions) == ["2026-11-28T101500", "2026-11-27T101500"]


def test_folders_of_one_name_have_ids_of_their_own(tmp_path: Path):
    folders = [tmp_path / parent / "my cell" for parent in ("a", "b")]
    for folder in folders:
        folder.parent.mkdir()
        written(folder)
    assert ids(Sessions(folders)) == ["my-cell", "my-cell-2"]


def test_an_agent_that_does_not_answer_is_busy_and_has_not_ended(tmp_path: Path):
    identity = {"pid": "1", "out": str(tmp_path.resolve())}

    class Busy(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if json.loads(self.rfile.readline())["command"] == "session":
                self.wfile.write(json.dumps({"ok": True, "session": identity}).encode() + b"\n")

    with socketserver.ThreadingUnixStreamServer(str(sockets_folder() / "1.sock"), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert Links().status(tmp_path) == {}
        sessions = Sessions([tmp_path])
        state = sessions.state(sessions.all()[0])
        assert (state["live"], "does not answer" in state["message"]) == (True, True)
        server.shutdown()
    assert Links().status(tmp_path) is None
