"""Files that come into a folder."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from xas_agent.adapters.folder import FolderSource, FolderWatch, watch
from xas_agent.adapters.formats import SpectrumFileError
from xas_agent.agent.assembly import FrameAssembler
from xas_agent.agent.fields import FieldMap

TABLE = "# energy mu\n" + "".join(f"{e:.2f} {np.arctan(e - 8333):.5f}\n" for e in np.linspace(8300.0, 8400.0, 30))


@pytest.fixture
def waiting(tmp_path) -> FolderWatch:
    return FolderWatch(tmp_path, settle_s=2.0)


def names(found) -> list[str]:
    return [path.name for path, _ in found]


def put(path: Path, text: str, mtime: int) -> None:
    path.write_text(text)
    os.utime(path, ns=(mtime, mtime))


def test_a_file_is_given_once_it_has_settled_and_only_once(tmp_path, waiting):
    put(tmp_path / "b.xdi", TABLE, 1)
    put(tmp_path / "a.xdi", TABLE, 2)
    assert names(waiting.poll(0.0)) == []
    assert names(waiting.poll(1.9)) == []
    found = list(waiting.poll(2.0))
    assert names(found) == ["b.xdi", "a.xdi"]
    assert len(found[0][1][0].energy) == 30
    assert names(waiting.poll(9.0)) == []


def test_a_file_that_grows_waits(tmp_path, waiting):
    path = tmp_path / "scan.xdi"
    for second in range(6):
        put(path, TABLE[: 100 + 40 * second], second)
        assert names(waiting.poll(float(second))) == []
    put(path, TABLE, 7)
    assert names(waiting.poll(7.0)) == []
    assert names(waiting.poll(9.0)) == ["scan.xdi"]


@pytest.mark.parametrize("half", [TABLE[:12], TABLE[:100], TABLE[:-3], "notes of the night\n", ""])
def test_half_a_file_waits_until_it_changes(tmp_path, waiting, half):
    path = tmp_path / "scan.xdi"
    put(path, half, 1)
    for now in (0.0, 3.0, 6.0):
        assert names(waiting.poll(now)) == []
    put(path, TABLE, 2)
    assert names(waiting.poll(7.0)) == []
    assert names(waiting.poll(9.0)) == ["scan.xdi"]


def test_a_file_that_changed_or_came_back_is_given_again(tmp_path, waiting):
    path = tmp_path / "scan.xdi"
    put(path, TABLE, 1)
    list(waiting.poll(0.0))
    assert names(waiting.poll(2.0)) == ["scan.xdi"]
    put(path, TABLE.replace("8400.00", "8401.00"), 2)
    list(waiting.poll(3.0))
    assert names(waiting.poll(5.0)) == ["scan.xdi"]
    path.unlink()
    assert names(waiting.poll(6.0)) == []
    put(path, TABLE, 3)
    list(waiting.poll(7.0))
    assert names(waiting.poll(9.0)) == ["scan.xdi"]


def test_what_is_not_meant_is_passed_over(tmp_path):
    for name in (".hidden.xdi", "scan.xdi.part", "scan.xdi~", "log.txt", "scan.xdi"):
        put(tmp_path / name, TABLE, 1)
    (tmp_path / "folder.xdi").mkdir()
    waiting = FolderWatch(tmp_path, pattern="*.xdi", settle_s=0.0)
    assert names(waiting.poll(0.0)) == ["scan.xdi"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(SpectrumFileError, match="expected a folder to watch"):
        next(watch(tmp_path / "nowhere"))
    with pytest.raises(SpectrumFileError, match="expected one to watch"):
        FolderSource(tmp_path / "nowhere")


def test_watching_ends_when_it_is_told_to(tmp_path):
    put(tmp_path / "scan.xdi", TABLE, 1)
    stop = threading.Event()
    found = []
    for path, _ in watch(tmp_path, settle_s=0.0, poll_s=0.01, stop=stop):
        found.append(path.name)
        stop.set()
    assert found == ["scan.xdi"]
    stop.clear()
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    assert names(watch(tmp_path, pattern="*.none", poll_s=30.0, stop=stop)) == []  # it does not sleep through it
    timer.join()


def test_a_folder_is_a_source_of_documents(tmp_path):
    for n in range(3):
        put(tmp_path / f"{n}.xdi", f"# Sample.name: LNO\n{TABLE}", n)
    source = FolderSource(tmp_path, settle_s=0.0, poll_s=0.01, element="Ni", edge="K")
    assembler, frames, kinds = FrameAssembler(FieldMap()), [], []
    for name, doc in source:
        kinds.append(name)
        frames += assembler(name, doc)
        if len(frames) == 3:
            source.close()
    assert kinds == ["start", "descriptor", "event", "event", "event", "stop"]
    assert [(f.element, f.time) for f in frames] == [("Ni", 0.0), ("Ni", 1e-9), ("Ni", 2e-9)]
