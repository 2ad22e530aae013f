"""A full disk: what cannot be written waits, what is lost is counted, and the file stays whole."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from full_disk import full_disk

from xas_agent.adapters.files import AppendedFile, FileSource
from xas_agent.app.output import kept
from xas_agent.app.output.csv_table import MAX_WAITING, CsvTable
from xas_agent.app.output.kept import Alarm, DocumentFile, replace_file


def start(uid: str) -> tuple[str, dict[str, Any]]:
    return "start", {"uid": uid}


def event(number: int, size: int = 100) -> tuple[str, dict[str, Any]]:
    return "event", {"uid": f"e{number}", "text": "x" * size}


def alarms(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["event"] for record in caplog.records]


def test_a_record_is_written_whole_or_not_at_all(tmp_path: Path):
    file = AppendedFile(tmp_path / "a")
    file.write(b"first\n")
    with full_disk(9), pytest.raises(OSError, match="File too large"):
        file.write(b"second\n")
    assert (tmp_path / "a").read_bytes() == b"first\n"
    file.write(b"third\n")
    file.close()
    assert (tmp_path / "a").read_bytes() == b"first\nthird\n"


def test_an_appended_file_keeps_what_it_has(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"first\n")
    file = AppendedFile(tmp_path / "a")
    file.write(b"second\n")
    file.close()
    assert (tmp_path / "a").read_bytes() == b"first\nsecond\n"


def test_a_file_is_replaced_by_its_first_record_and_not_before(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"of yesterday, and longer\n")
    AppendedFile(tmp_path / "a", replace=True).close()
    assert (tmp_path / "a").read_bytes() == b"of yesterday, and longer\n"
    file = AppendedFile(tmp_path / "a", replace=True)
    for record in (b"first\n", b"second\n"):
        file.write(record)
    file.close()
    assert (tmp_path / "a").read_bytes() == b"first\nsecond\n"


@pytest.mark.parametrize("fsync", [False, True])
def test_a_document_is_on_the_disk_before_it_counts_as_written(
    fsync: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[int] = []

    def spy(number: int, real: Callable[[int], None] = os.fsync) -> None:
        real(number)
        synced.append((tmp_path / "d.jsonl").read_bytes().count(b"\n"))

    monkeypatch.setattr(os, "fsync", spy)
    file = DocumentFile(tmp_path / "d.jsonl", Alarm(tmp_path), fsync=fsync)
    for document in (start("a"), event(1), event(2)):
        file(*document)
    file.close()
    assert synced == ([1, 2, 3] if fsync else [])


def test_a_document_of_before_a_restart_is_passed_over(tmp_path: Path):
    file = DocumentFile(tmp_path / "d.jsonl", Alarm(tmp_path), lambda name, doc: doc["uid"] in {"a", "e1"})
    for document in (start("a"), event(1), event(2)):
        file(*document)
    file.close()
    assert [doc["uid"] for _, doc in FileSource(tmp_path / "d.jsonl")] == ["e2"]


def test_after_a_short_lack_of_space_nothing_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "xas_agent")
    file = DocumentFile(tmp_path / "documents.jsonl", Alarm(tmp_path))
    file(*start("a"))
    with full_disk(500):
        for number in range(100):
            file(*event(number))
        found = [json.loads(line) for line in (tmp_path / "documents.jsonl").read_text().splitlines()]
        assert 0 < file.lost == 101 - len(found)
    file.close()
    assert file.lost == 0
    assert [doc["uid"] for _, doc in FileSource(tmp_path / "documents.jsonl")] == [
        "a",
        *(f"e{k}" for k in range(100)),
    ]
    assert alarms(caplog) == ["output not written", "output written again"]


def test_a_file_that_is_removed_is_written_again_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "out" / "documents.jsonl"
    file, table = (
        DocumentFile(path, Alarm(tmp_path)),
        CsvTable(tmp_path / "out" / "t.csv", lambda: ["a"], Alarm(tmp_path)),
    )
    for number in range(3):
        file(*event(number))
        table.append({"a": number})
        table.write()
        shutil.rmtree(tmp_path / "out")
        file(*event(10 + number))  # before it is noticed
        file.flush()
        table.write()
    os.replace(path.with_name("t.csv"), tmp_path / "t.csv")  # as a person who looks for space
    path.unlink()
    path.with_name("new").write_text("another one\n")
    os.replace(path.with_name("new"), path)
    file.flush()
    file(*event(3))
    file.close()
    table.write()
    table.close()
    assert [doc["uid"] for _, doc in FileSource(path)] == ["e0", "e10", "e1", "e11", "e2", "e12", "e3"]
    assert path.with_name("documents.jsonl.other").read_text() == "another one\n"
    assert path.with_name("t.csv").read_text().split() == ["a", "0", "1", "2"]
    assert (file.lost, table.lost) == (0, 0)
    assert alarms(caplog) == ["file was removed, and is written again"] * 4


@pytest.mark.parametrize("kept_bytes", [0, 150])
def test_what_follows_in_a_file_that_somebody_shortened_can_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kept_bytes: int
):
    path = tmp_path / "documents.jsonl"
    file = DocumentFile(path, Alarm(tmp_path))
    descriptor = ("descriptor", {"uid": "d", "run_start": "r"})
    for document in (start("r"), descriptor, start("ended"), ("stop", {"uid": "s", "run_start": "ended"}), event(0)):
        file(*document)
    os.truncate(path, kept_bytes)
    file(*event(1))
    file(*event(2))
    file.close()
    found = [doc["uid"] for _, doc in FileSource(path)]
    assert found[-4:] == ["r", "d", "e1", "e2"]
    assert file.cut
    assert alarms(caplog) == ["file was shortened", *["record skipped"] * bool(kept_bytes)]


def test_a_file_that_is_moved_is_written_on_where_no_other_one_can_be(tmp_path: Path):
    path = tmp_path / "out" / "documents.jsonl"
    file = DocumentFile(path, Alarm(tmp_path))
    file(*start("a"))
    os.replace(path.parent, tmp_path / "moved")
    path.parent.write_text("no folder")
    file.flush()
    file(*event(1))
    file.close()
    assert file.lost == 0
    assert [doc["uid"] for _, doc in FileSource(tmp_path / "moved" / "documents.jsonl")] == ["a", "e1"]


def test_documents_in_a_file_that_is_gone_are_lost(tmp_path: Path):
    file = DocumentFile(tmp_path / "documents.jsonl", Alarm(tmp_path))
    file(*start("a"))
    (tmp_path / "documents.jsonl").unlink()
    with full_disk(0):
        file.flush()
        file(*event(1))
        assert file.lost == 2
    file.flush()
    file.close()
    assert file.lost == 0
    assert [doc["uid"] for _, doc in FileSource(tmp_path / "documents.jsonl")] == ["a", "e1"]


def test_of_a_long_lack_of_space_the_loss_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level(logging.INFO, "xas_agent")
    monkeypatch.setattr(kept, "BACKLOG_MB", 8)
    file = DocumentFile(tmp_path / "documents.jsonl", Alarm(tmp_path))
    count, size = 50, kept.BACKLOG_MB * 1_000_000 // 20
    with full_disk(0):
        file(*start("a"))
        for number in range(count):
            file(*event(number, size))
        file("stop", {"uid": "z"})
    file.close()
    written = [doc["uid"] for _, doc in FileSource(tmp_path / "documents.jsonl")]
    assert written[0] == "a"
    assert written[-1] == "z"
    assert 0 < file.lost == count + 2 - len(written)
    told = "documents not in the file"
    assert alarms(caplog) == ["output not written", told, "output written again", told]
    assert sum(record.__dict__["context"].get("given_up", 0) for record in caplog.records) == file.lost


def test_what_waits_at_the_end_is_lost(tmp_path: Path):
    file = DocumentFile(tmp_path / "documents.jsonl", Alarm(tmp_path))
    with full_disk(0):
        file(*start("a"))
        file.close()
    file(*start("b"))
    assert file.lost == 2
    assert (tmp_path / "documents.jsonl").read_bytes() == b""


def test_a_table_waits_for_space_and_counts_what_it_drops(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    table = CsvTable(tmp_path / "t.csv", lambda: ["a"], Alarm(tmp_path))
    table.append({"a": 1})
    table.write()
    with full_disk(4):
        table.append({"a": 2})
        for _ in range(3):
            table.write()
        assert table.lost == 1
        for number in range(MAX_WAITING):
            table.append({"a": number})
    table.write()
    table.close()
    assert table.lost == 1
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 2 + MAX_WAITING
    assert alarms(caplog) == ["output not written"]


def test_a_new_column_comes_into_the_whole_table(tmp_path: Path):
    header = ["a", "c"]
    table = CsvTable(tmp_path / "t.csv", lambda: list(header), Alarm(tmp_path))
    table.append({"a": "1,\n", "c": "ü"})
    table.write()
    header.insert(1, "b")
    table.append({"a": 2, "b": 3, "other": 4})
    table.write()
    table.close()
    assert (tmp_path / "t.csv").read_bytes().decode() == 'a,b,c\r\n"1,\n",,ü\r\n2,3,\r\n'
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_no_name_from_outside_is_a_formula_for_a_spreadsheet(tmp_path: Path):
    header = ["=a", "c"]
    table = CsvTable(tmp_path / "t.csv", lambda: list(header), Alarm(tmp_path))
    table.append({"=a": "=1+1", "c": "@x"})
    table.append({"=a": "-5.5", "c": -1e-3})
    table.write()
    header.append("d")  # the table is read and written again
    table.write()
    table.close()
    assert (tmp_path / "t.csv").read_text().splitlines() == ["'=a,c,d", "'=1+1,'@x,", "-5.5,-0.001,"]


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path):
    path = tmp_path / "summary.json"
    replace_file(path, lambda new: new.write_text("old") and None)
    with full_disk(3), pytest.raises(OSError, match="File too large"):
        replace_file(path, lambda new: new.write_text("newer") and None)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]
