"""Files that come into a folder."""

import fcntl
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streams import Frames

from xas_agent.adapters.files.folder import FolderSource, FolderWatch, watch
from xas_agent.adapters.formats import SpectrumFileError
from xas_agent.agent.fields.settings import FieldSettings
from xas_agent.agent.types.frame import Document

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
    assert names(waiting.poll(9.9)) == []
    assert names(waiting.poll(10.0)) == ["scan.xdi"]


def test_a_file_written_point_by_point_is_not_whole_after_a_long_point(tmp_path, waiting):
    """A point every ten seconds, where a file counts as whole after two."""
    path, lines = tmp_path / "scan.xdi", TABLE.splitlines(keepends=True)
    for n in range(1, 31):
        put(path, "".join(lines[: n + 1]), n)
        for later in (0.0, 5.0, 9.9):
            assert names(waiting.poll(10.0 * n + later)) == []
    ((_, (spectrum,)),) = waiting.poll(330.0)
    assert len(spectrum.energy) == 30


def test_a_scan_that_is_appended_is_given_alone(tmp_path, waiting):
    path = tmp_path / "scans.spec"
    scan = "#S {n} ascan\n#N 2\n#L energy  mu\n" + TABLE.partition("\n")[2]
    put(path, "#F scans.spec\n\n" + scan.format(n=1), 1)
    list(waiting.poll(0.0))
    assert [s.id for _, found in waiting.poll(2.0) for s in found] == ["scans.spec:1"]
    put(path, path.read_text() + scan.format(n=2), 2)
    list(waiting.poll(300.0))
    assert [s.id for _, found in waiting.poll(360.0) for s in found] == ["scans.spec:2"]
    os.utime(path, ns=(3, 3))
    list(waiting.poll(400.0))
    assert list(waiting.poll(500.0)) == []


def test_a_file_that_is_renamed_is_not_given_again(tmp_path, waiting):
    put(tmp_path / "scan.xdi", TABLE, 1)
    list(waiting.poll(0.0))
    assert names(waiting.poll(2.0)) == ["scan.xdi"]
    (tmp_path / "scan.xdi").rename(tmp_path / "scan_001.xdi")
    put(tmp_path / "scan.xdi", TABLE.replace("8400.00", "8401.00"), 2)
    list(waiting.poll(3.0))
    assert names(waiting.poll(9.0)) == ["scan.xdi"]


def test_a_file_that_cannot_be_opened_is_tried_again_without_a_change(tmp_path, waiting):
    """As on a share that is away for a moment, or under a lock."""
    h5py = pytest.importorskip("h5py", reason="HDF5 needs the extra [formats]")
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["energy"], file["mu"] = np.linspace(8300.0, 8400.0, 30), np.linspace(0.0, 1.0, 30)
    with path.open("rb+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for now in (0.0, 2.0, 4.0):
            assert names(waiting.poll(now)) == []
    assert names(waiting.poll(60.0)) == ["scan.h5"]


def test_a_folder_that_is_away_is_waited_for(tmp_path):
    folder, away, stop = tmp_path / "in", tmp_path / "away", threading.Event()
    folder.mkdir()
    put(folder / "1.xdi", TABLE, 1)
    found = watch(folder, settle_s=0.0, poll_s=0.01, stop=stop)
    assert next(found)[0].name == "1.xdi"
    folder.rename(away)
    put(away / "2.xdi", TABLE, 2)
    timer = threading.Timer(0.2, lambda: away.rename(folder))
    timer.start()
    assert next(found)[0].name == "2.xdi"
    timer.join()


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


def test_what_is_not_meant_is_ignored(tmp_path):
    for name in (".hidden.xdi", "scan.xdi.part", "scan.xdi~", "run.jsonl", "log.txt", "scan.xdi"):
        put(tmp_path / name, TABLE, 1)
    (tmp_path / "folder.xdi").mkdir()
    waiting = FolderWatch(tmp_path, pattern="*.xdi", settle_s=0.0)
    assert names(waiting.poll(0.0)) == ["scan.xdi"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(SpectrumFileError, match="expected a folder to watch"):
        next(watch(tmp_path / "nowhere"))
    with pytest.raises(SpectrumFileError, match="expected a folder to watch"):
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
    assembler, frames, kinds = Frames(FieldSettings()), [], []
    for name, doc in source:
        kinds.append(name)
        frames += assembler(name, doc)
        if len(frames) == 3:
            source.close()
    assert kinds == ["start", "descriptor", "event", "event", "event", "stop"]
    assert [(f.element, f.time) for f in frames] == [("Ni", 0.0), ("Ni", 1e-9), ("Ni", 2e-9)]


def test_what_is_not_read_is_listed_while_it_is_there(tmp_path, waiting):
    for name, text in (("good.xdi", TABLE), ("bad.xdi", "no numbers\n"), ("gone.xdi", "no numbers\n")):
        put(tmp_path / name, text, 1)
    list(waiting.poll(0.0))
    assert set(waiting.unread) == {"good.xdi", "bad.xdi", "gone.xdi"}
    list(waiting.poll(3.0))
    (tmp_path / "gone.xdi").unlink()
    assert list(waiting.unread) == ["bad.xdi"]
    assert "expected columns" in waiting.unread["bad.xdi"]


@pytest.mark.parametrize("killed_after", range(1, 7))
def test_a_source_goes_on_after_any_document(killed_after: int, tmp_path: Path):
    scan = "#S {n} ascan\n#N 2\n#L energy  mu\n" + TABLE.partition("\n")[2]
    put(tmp_path / "a.spec", "#F a.spec\n\n" + "".join(scan.format(n=n) for n in (1, 2, 3)), 1)
    put(tmp_path / "b.xdi", TABLE.replace("8300.00", "8299.00"), 2)
    position: dict[str, Any] = {}
    documents: list[Document] = []

    def read(end: int) -> None:
        source = FolderSource(tmp_path, settle_s=0.0, poll_s=0.0, element="Ni", edge="K")
        source.resume(json.loads(json.dumps(position)))
        for document in source:
            position.update(source.position)
            documents.append(document)
            if len(documents) == end:
                return

    read(killed_after)
    put(tmp_path / "c.xdi", TABLE.replace("8300.00", "8298.00"), 3)
    read(7)
    assert [name for name, _ in documents] == ["start", "descriptor", *["event"] * 5]
    (_, start), (_, descriptor), *events = documents
    assert descriptor["run_start"] == start["uid"]
    assert {event["descriptor"] for _, event in events} == {descriptor["uid"]}
    assert [event["seq_num"] for _, event in events] == [1, 2, 3, 4, 5]
    assert [event["data"]["file"] for _, event in events] == ["a.spec"] * 3 + ["b.xdi", "c.xdi"]


def test_a_file_that_was_there_at_the_beginning_is_as_old_as_it_is(tmp_path):
    an_hour_ago = time.time_ns() - 3600 * 10**9
    put(tmp_path / "early.xdi", TABLE, an_hour_ago)
    source = FolderSource(tmp_path, settle_s=0.0, poll_s=0.01, element="Ni", edge="K")
    ages: list[float] = []
    for name, _ in source:
        if name == "event":
            ages.append(source.age_s)
            put(tmp_path / "late.xdi", TABLE.replace("8400.00", "8401.00"), an_hour_ago)  # as copied with its time
            if len(ages) == 2:
                source.close()
    assert ages == [pytest.approx(3600.0, abs=60.0), 0.0]
    once = FolderSource(tmp_path, element="Ni", edge="K", once=True)
    assert [once.age_s for name, _ in once if name == "event"] == [0.0, 0.0]


def test_the_rest_of_a_file_is_as_old_as_it_is_after_a_restart(tmp_path):
    an_hour_ago = time.time_ns() - 3600 * 10**9
    put(tmp_path / "scan.xdi", TABLE, an_hour_ago)
    before = FolderWatch(tmp_path, settle_s=0.0)
    assert names(before.poll(0.0)) == ["scan.xdi"]
    after = FolderWatch(tmp_path, settle_s=0.0)
    after.restore("scan.xdi", before.state("scan.xdi", 0))
    assert names(after.poll(0.0)) == ["scan.xdi"]
    assert after.age_s("scan.xdi") == pytest.approx(3600.0, abs=60.0)


def test_the_position_of_a_file_whose_name_is_no_utf8_can_be_stored(tmp_path):
    put(tmp_path / os.fsdecode(b"Pr\xe4parat.dat"), TABLE, 1)
    source = FolderSource(tmp_path, once=True)
    positions = [dict(source.position) for name, doc in source if name == "event"]
    stored = json.loads(json.dumps(positions[0], ensure_ascii=False).encode())
    again = FolderSource(tmp_path, once=True)
    again.resume(stored)
    assert [name for name, doc in again] == ["stop"]
