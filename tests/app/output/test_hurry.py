"""A session that is to end at once does not wait for a picture in progress."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded_frames import frame, started

from xas_agent.app.output import folder
from xas_agent.app.output.folder import PICTURE, OutputFolder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for the drawing process in /proc")


def drawing_processes() -> Iterator[int]:
    """Yield the children of this process that draw."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = path.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            command = path.joinpath("cmdline").read_text()
        except OSError:  # it ended
            continue
        if int(parent) == os.getpid() and "output.drawing" in command:
            yield int(path.name)


def test_a_picture_in_progress_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder, "_WRITE_S", 0.01)
    monkeypatch.setattr(folder, "_FIRST_PICTURE_S", 0.0)
    output = OutputFolder(tmp_path)
    frame(started(output.recorder), 1)
    output.start(dict, None)
    while not (children := [*drawing_processes()]):
        pass
    os.kill(children[0], signal.SIGSTOP)  # it would be waited for until the test's deadline
    output.finish(lambda: True)
    assert not [*drawing_processes()]
    assert output.not_whole == [PICTURE]
