"""A reader that ends, a closed stream or a full disk under the log costs no frame, and the exit code stays."""

import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import forked
import pytest

from xas_agent.adapters.files import FileSink
from xas_agent.agent.types import get_logger
from xas_agent.app.commands.process import log_from
from xas_agent.sim_beamline.beamline import SimBeamline
from xas_agent.sim_beamline.settings import BeamlineSettings

FRAMES = 4
SET_ASIDE = 4
DEBUG = ("--log-level", "debug")


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "run.jsonl"
    sink = FileSink(path)
    SimBeamline(BeamlineSettings(frame_period_s=0, frames=FRAMES), [sink]).run()
    sink.close()
    return path


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "xas_agent", *DEBUG, *map(str, args)]


def whole(out: Path, frames: int = FRAMES) -> None:
    documents = [json.loads(line) for line in (out / "documents.jsonl").read_text().splitlines()]
    assert documents[-1][0] == "stop"
    assert json.loads((out / "summary.json").read_text())["frames"] == frames
    assert len((out / "descriptors.csv").read_text().splitlines()) == 1 + frames
    assert [json.loads(line)["event"] for line in (out / "log.jsonl").read_text().splitlines()].count("watching") == 1


@contextmanager
def _unread(which: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    read, write = os.pipe()
    os.close(read)
    yield dict.fromkeys(which, write)
    os.close(write)


@contextmanager
def _full_disk() -> Iterator[dict[str, Any]]:
    with open("/dev/full", "w") as full:
        yield {"stderr": full}


@contextmanager
def _terminal_gone() -> Iterator[dict[str, Any]]:
    """A live table on a terminal that is closed."""
    ours, theirs = pty.openpty()
    os.close(ours)
    yield {"stderr": theirs}
    os.close(theirs)


@contextmanager
def _closed() -> Iterator[dict[str, Any]]:
    yield {"preexec_fn": lambda: os.closerange(0, 3)}


BROKEN: dict[str, Callable[[], Any]] = {
    "nobody reads stderr": lambda: _unread(("stderr",)),
    "all closed": _closed,
    "full disk": _full_disk,
    "terminal gone": _terminal_gone,
}


def answer_all(how: str, begins: Callable[..., list[str]], recording: Path, out: Path) -> None:
    if how == "full disk" and not Path("/dev/full").exists():
        pytest.skip("the system has no /dev/full")
    with BROKEN[how]() as streams:
        given = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **streams}
        line = begins("replay", recording, "--model", "co-k", "--out", out)
        assert subprocess.run(line, timeout=100, **given).returncode == 0
    whole(out)


@pytest.mark.slow
@pytest.mark.parametrize("how", BROKEN)
def test_every_frame_is_answered_whatever_becomes_of_the_output(how, recording, tmp_path):
    answer_all(how, command, recording, tmp_path)


def test_every_frame_is_answered_on_a_full_disk(recording, tmp_path):
    """In a forked process, which spares the imports."""
    answer_all("full disk", lambda *args: forked.command(*DEBUG, *args), recording, tmp_path)


@pytest.mark.slow
def test_a_reader_that_takes_one_line_ends_nothing(recording, tmp_path):
    line = command("replay", recording, "--model", "co-k", "--out", tmp_path)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(100) == 0
    whole(tmp_path)


@pytest.mark.slow
def test_the_embedded_beamline_is_watched_to_the_end_without_a_reader(tmp_path):
    line = command("run", "--frames", 2, "--out", tmp_path)
    with _unread(("stdout", "stderr")) as streams:
        assert subprocess.run(line, timeout=100, **streams).returncode == 0
    whole(tmp_path, 2)


@pytest.mark.slow
def test_the_exit_code_says_how_the_work_went_not_the_output(recording, tmp_path):
    with _unread(("stdout", "stderr")) as streams:
        line = command("replay", recording, "--model", "ni-k", "--out", tmp_path, "--strict")
        assert subprocess.run(line, timeout=100, **streams).returncode == SET_ASIDE
    whole(tmp_path, 0)


def test_a_usage_error_keeps_its_exit_code(tmp_path):
    with _unread(("stdout", "stderr")) as streams:
        line = command("replay", tmp_path / "none.jsonl")
        assert subprocess.run(line, timeout=100, **streams).returncode == 2


def test_a_traceback_in_the_log_shows_no_values(capsys, monkeypatch):
    logger = logging.getLogger("xas_agent")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logger.level)
    log_from("info")

    def fail(curve_secret_key: str) -> None:
        raise ValueError("not served")

    try:
        fail("v9Xk")
    except ValueError:
        get_logger().exception("set aside", frame=3)
    written = capsys.readouterr().err
    assert "set aside" in written
    assert written.rstrip().endswith("ValueError: not served")
    assert "v9Xk" not in written.replace('fail("v9Xk")', "")


def test_a_line_of_the_log_can_be_split_into_its_parts(capsys, monkeypatch):
    logger = logging.getLogger("xas_agent")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logger.level)
    log_from("info")
    get_logger().warning(
        "set aside", reason="no edge", frame=3, detail="it's 'short'", file=Path("a b.dat"), model="co-k"
    )
    (line,) = capsys.readouterr().err.splitlines()
    parts = "set aside                      detail=\"it's 'short'\" file=PosixPath('a b.dat') frame=3 model=co-k"
    assert line[20:] == f"[warning  ] {parts} reason='no edge'"


def test_results_that_cannot_be_written_are_an_error():
    if not Path("/dev/full").exists():
        pytest.skip("the system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("models", "list"), stdout=full, stderr=subprocess.PIPE, text=True, timeout=100)
    expected = "xas-agent: stdout: No space left on device; what it got is not complete\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_what_a_terminal_of_another_encoding_cannot_show_is_written_out():
    """CP1252, with which Windows writes into files, lacks ≥."""
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    line = command("rules", "triggers", "threshold")
    done = subprocess.run(line, env=environment, capture_output=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u2265" in done.stdout
