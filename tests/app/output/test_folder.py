"""The folder of a session while it is written."""

from pathlib import Path

import pytest
from deadline import wait_until
from logs import capture_logs

from xas_agent.agent.types import InputError, Received
from xas_agent.app.output import folder
from xas_agent.app.output.folder import OutputFolder


def test_a_journal_that_is_removed_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_WRITE_S", 0.01)
    output = OutputFolder(tmp_path, {"source": "s", "config": "c", "models": "m"})
    journal = output.journal
    assert journal is not None
    summaries: list[int] = []
    with capture_logs() as logs:
        output.start(lambda: summaries.append(journal.unkept) or {}, None)
        journal.path.unlink()
        wait_until(lambda: summaries.count(1) > 3, 10)
        output.finish()
    journal.close()
    assert summaries[-1] == 1  # documents are not kept: nothing is acknowledged to a broker
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["journal was removed"]


def test_a_folder_in_which_no_session_began_takes_another_config(tmp_path: Path) -> None:
    """As where a config named a quantity that no model has."""
    first, second, third = ({"source": "s", "config": config, "models": "m"} for config in "abc")
    OutputFolder(tmp_path, first).release()
    output = OutputFolder(tmp_path, second)
    assert output.journal is not None
    output.journal.accept([Received("start", {"uid": "u", "time": 0.0}, 0.0)])
    output.journal.commit()
    output.release()
    with pytest.raises(InputError, match="found a session with another config"):
        OutputFolder(tmp_path, third)
    OutputFolder(tmp_path, second).release()


def test_the_description_of_a_session_that_is_removed_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "_WRITE_S", 0.01)
    output, path = OutputFolder(tmp_path), tmp_path / "session.json"
    output.start(dict, None, lambda: path.write_text("{}"))
    path.unlink()
    wait_until(path.exists, 10)
    output.finish()
