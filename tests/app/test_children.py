"""Processes that a session starts, in a folder whose files have the names of modules."""

from pathlib import Path

import pytest

from xas_agent.app.embedded import BeamlineProcess
from xas_agent.sim_beamline.settings import BeamlineSettings


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xas_agent.py", "numpy.py"])
def test_files_of_the_working_directory_are_not_imported_by_the_beamline(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / name).write_text("raise SystemExit('the file of the user was imported')\n")
    monkeypatch.chdir(tmp_path)
    beamline = BeamlineProcess(BeamlineSettings(frames=1), tmp_path / "truth.jsonl")
    beamline.close(lambda: True)
    assert "127.0.0.1:" in beamline.documents_address
