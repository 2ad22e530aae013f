"""The log of a session in its folder: valid JSON, bounded, and never the cause of a lost frame."""

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import run_command
from full_disk import full_disk

import xas_agent.app.output.log_file as module
from xas_agent.agent.types import get_logger
from xas_agent.app.output.folder import OutputFolder
from xas_agent.app.output.kept import Alarm
from xas_agent.app.output.log_file import LOG, LogFile

log = get_logger()


@pytest.fixture(autouse=True)
def level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "xas_agent")


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[LogFile]:
    file = LogFile(tmp_path, Alarm(tmp_path))
    yield file
    file.close()


def strict(text: str) -> Any:
    """Parse as a parser does that follows the standard."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [strict(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]


def test_each_line_is_json_with_time_level_event_and_context(tmp_path: Path, log_file: LogFile) -> None:
    log.warning("set aside", reason="no edge", μ=1.5, path=tmp_path, count=np.int64(3))
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
    first, second = lines(tmp_path)
    assert first.pop("timestamp").endswith("+00:00")
    expected = {"level": "warning", "event": "set aside", "reason": "no edge", "μ": 1.5, "path": str(tmp_path)}
    assert first == {**expected, "count": 3}
    assert second["level"] == "error"
    assert second["exception"].endswith("ValueError: broken")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (float("nan"), "nan"),
        (np.float32("inf"), "inf"),
        ({"a": float("nan")}, "{'a': nan}"),
        ({(1,): 2}, "{(1,): 2}"),
        ({1, 2}, "{1, 2}"),
        (b"\xff", "b'\\xff'"),
        ("\ud800", "\ud800"),
        (np.array([1, 2]), [1, 2]),
    ],
)
def test_what_json_cannot_express_is_text(value: object, written: object, tmp_path: Path, log_file: LogFile) -> None:
    log.info("odd", value=value, number=1)
    (line,) = lines(tmp_path)
    assert (line["value"], line["number"]) == (written, 1)


def test_a_long_context_is_left_out(tmp_path: Path, log_file: LogFile) -> None:
    log.info("long", text="x" * 1_000_000)
    (line,) = lines(tmp_path)
    assert line["event"] == "long"
    assert "context of 1000" in line["left_out"]
    assert "text" not in line


def test_the_files_are_bounded(tmp_path: Path, log_file: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    log_file.maxBytes = 2000
    for number in range(500):
        log.info("line", number=number)
    files = sorted(tmp_path.glob(f"{LOG}*"))
    assert len(files) == 1 + module._FILES
    assert all(file.stat().st_size <= 2000 for file in files)
    assert lines(tmp_path)[-1]["number"] == 499


@pytest.mark.parametrize("rotates", [False, True])
def test_a_full_disk_is_said_once_and_the_log_goes_on(
    rotates: bool,
    tmp_path: Path,
    log_file: LogFile,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    log.info("first")
    size = (tmp_path / LOG).stat().st_size
    log_file.maxBytes = size + 50 if rotates else 0
    with full_disk(size + 20):
        for number in range(300):
            log.info("while it is full", number=number, text="x" * 200)
    log_file.maxBytes = 0
    log_file.retry()
    log.info("last")
    events = [record.__dict__["event"] for record in caplog.records]
    assert events.count("output not written") == 1 == events.count("output written again")
    assert lines(tmp_path)[-1]["event"] == "last"
    assert capfd.readouterr().err == ""


def test_lines_of_several_threads_stay_whole(tmp_path: Path, log_file: LogFile) -> None:
    def write() -> None:
        for number in range(200):
            log.info("line", number=number)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(tmp_path)) == 800


def test_the_log_belongs_to_the_folder_until_its_end(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text('{"event": "of an earlier try"}\n')
    output = OutputFolder(tmp_path)
    log.info("within")
    output.finish()
    log.info("after")
    assert [line["event"] for line in lines(tmp_path)] == ["of an earlier try", "within"]


@pytest.mark.slow
def test_rebuild_leaves_the_log_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_command("run", "--frames", 2, "--out", out)
    before = (out / LOG).read_bytes()
    assert {line["event"] for line in lines(out)} >= {"listening", "watching"}
    run_command("rebuild", out)
    assert (out / LOG).read_bytes() == before


def test_a_log_that_is_removed_is_written_again(tmp_path: Path, log_file: LogFile) -> None:
    log.warning("before")
    (tmp_path / LOG).unlink()
    log_file.restore()
    log.warning("between")
    (tmp_path / "new").write_text("another one\n")
    (tmp_path / "new").replace(tmp_path / LOG)
    log_file.close()
    told = "file was removed, and is written again"
    assert [line["event"] for line in lines(tmp_path)] == ["before", told, "between", told]
    assert (tmp_path / f"{LOG}.other").read_text() == "another one\n"
