"""The live view on a terminal in memory, in a real one, and the lines elsewhere."""

import fcntl
import io
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from deadline import wait_until
from recorded_frames import frame, started
from rich.cells import cell_len
from rich.console import Console
from screens import Terminal

from xas_agent.adapters.files import FileSink
from xas_agent.agent.decide import Condition, Standing
from xas_agent.app.output.live import Display
from xas_agent.app.output.recorder import Recorder
from xas_agent.app.output.screen import Facts
from xas_agent.sim_beamline.beamline import SimBeamline
from xas_agent.sim_beamline.settings import BeamlineSettings

VALUES = {"OS_mean": 3.25, "OS_lo": 2.75, "OS_hi": 3.75, "OS_sd_frame": 0.02}
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def shown(terminal: Terminal, width: int, height: int) -> tuple[Console, Recorder, Display]:
    console = Console(file=cast(Any, terminal), force_terminal=True, width=width, height=height, legacy_windows=False)
    recorder = started(Recorder())
    standing = Standing("half", "stop", (Condition("OS", "above 3.5 e", "e", "", "", 3.25, (3.5,), -0.25),))
    return console, recorder, Display(recorder, 9, lambda: Facts(standing=[standing]), {"OS": "e"}, console)


def draw(display: Display) -> None:
    display._drawn_at = -math.inf  # as if the time between two drawings had passed
    display.refresh()


def test_the_screen_replaces_itself_and_log_lines_stay_above_it():
    terminal = Terminal()
    console, recorder, display = shown(terminal, 80, 24)
    display.start()
    for number in range(1, 6):
        frame(recorder, number, **VALUES)
        draw(display)
        console.print(f"log line {number}", highlight=False)
    display.stop()
    assert terminal.lines[:5] == [f"log line {number}" for number in range(1, 6)]
    text = "\n".join(terminal.lines)
    assert (text.count("RULE"), text.count("MEASURING"), text.count("ENDED")) == (1, 0, 1)
    assert "stop: half  OS 3.25 e  above 3.5 e  0.25 e to go" in text
    assert len(terminal.lines) <= 5 + 24


@pytest.mark.parametrize("size", [(60, 15), (40, 12), (160, 50), (80, 12)])
def test_after_a_change_of_size_nothing_of_the_old_screen_remains(size: tuple[int, int]):
    terminal = Terminal()
    console, recorder, display = shown(terminal, 80, 24)
    console.print("a log line", highlight=False)
    display.start()
    for number in range(1, 20):
        frame(recorder, number, **VALUES)
    draw(display)
    if size[0] < 80:  # a terminal that becomes narrower folds what is too long
        folded = [line[k : k + size[0]] for line in terminal.lines for k in range(0, max(len(line), 1), size[0])]
        terminal.lines, terminal._row = folded, len(folded) - 1
    console.size = size
    draw(display)
    display.stop()
    while not terminal.lines[-1]:
        terminal.lines.pop()
    assert terminal.lines[0] == "a log line"
    text = "\n".join(terminal.lines)
    assert (text.count("frame to frame"), text.count("ENDED")) == (1, 1)
    assert max(map(cell_len, terminal.lines)) <= size[0]
    assert len(terminal.lines) <= 1 + size[1]


def test_the_screen_is_drawn_only_as_often_as_a_person_can_follow():
    terminal = Terminal()
    _, recorder, display = shown(terminal, 80, 24)
    display.start()
    frame(recorder, 1, **VALUES)
    draw(display)
    before = list(terminal.lines)
    frame(recorder, 2, **VALUES)
    display.refresh()  # at once
    assert terminal.lines == before


def test_without_colours_the_screen_says_the_same(monkeypatch):
    def screen() -> list[str]:
        file = io.StringIO()
        console = Console(file=file, force_terminal=True, width=80, height=24, legacy_windows=False)
        recorder = started(Recorder())
        frame(recorder, 1, **VALUES | {"ood_score": 1.7})
        display = Display(recorder, None, lambda: Facts(paused="by rule", connected=False), {}, console)
        display.start()
        display.stop()
        coloured = re.compile(r"\x1b\[[0-9;]*3[0-7][0-9;]*m")
        assert bool(coloured.search(file.getvalue())) != ("NO_COLOR" in os.environ)
        return re.sub(r"\d\d:\d\d:\d\d", "", _CONTROL.sub("", file.getvalue())).splitlines()

    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with_colours = screen()
    monkeypatch.setenv("NO_COLOR", "1")
    assert screen() == with_colours
    assert any("UNLIKE WHAT THE MODEL KNOWS" in line for line in with_colours)


def test_elsewhere_a_step_scan_and_a_pause_are_said_in_lines(capsys):
    facts = iter(
        [Facts(), Facts(points=(7, 253)), Facts(points=(7, 253)), Facts(points=(8, 0)), Facts(paused="by r: x")]
    )
    display = Display(Recorder(), None, lambda: next(facts))
    display._shown_at = -math.inf
    for _ in range(5):
        display.refresh()
        display._shown_at = -math.inf  # as if the interval between two lines had passed
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        *["scan in progress: 7 of 253 points", "scan in progress: 8 of an unknown number of points"],
        "PAUSED for 0 s by r: x. xas-agent resume goes on",
    ]


def test_elsewhere_a_name_cannot_write_over_other_lines(capsys):
    recorder = started(Recorder())
    frame(recorder, 1, **VALUES, sample="LCO\x1b[2J\x08")
    Display(recorder, None).stop()
    said = capsys.readouterr().err
    assert "LCO[2J" in said
    assert not re.search("[\x1b\x08]", said)


@pytest.mark.slow
def test_in_a_real_terminal_whose_size_changes(tmp_path: Path):
    recording = tmp_path / "run.jsonl"
    sink = FileSink(recording)
    SimBeamline(BeamlineSettings(frame_period_s=0, frames=6), [sink]).run()
    sink.close()
    ours, theirs = pty.openpty()
    _resize(theirs, 80, 24)
    line = [sys.executable, "-m", "xas_agent", "replay", str(recording), "--model", "co-k"]
    environment = {**os.environ, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=theirs, env=environment, cwd=tmp_path) as process:
        written = bytearray()
        os.set_blocking(ours, False)

        def seen(word: bytes) -> bool:
            with suppress(BlockingIOError):
                written.extend(os.read(ours, 1 << 16))
            return word in written

        wait_until(lambda: seen(b"WAITING") or seen(b"MEASURING"))
        _resize(theirs, 60, 15)
        wait_until(lambda: seen(b"ENDED") and b"\x1b[?25h" in written.rpartition(b"ENDED")[2])
        process.kill()  # it draws its picture now
    os.close(ours)
    os.close(theirs)
    screen = [_CONTROL.sub("", line) for line in f"ENDED{written.decode().rpartition('ENDED')[2]}".splitlines()]
    assert screen[0].startswith("ENDED  6 of 6 frames")
    assert any(re.search(r"OS \d\.\d\d\d e  ± 0\.\d\d\d e frame to frame", line) for line in screen), screen
    assert max(map(cell_len, screen)) <= 60
    assert 8 <= len(screen) <= 12


def _resize(terminal: int, width: int, height: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_that_goes_away_does_not_cost_the_session(terminal: bool):
    class Gone(io.StringIO):
        taken = True

        def write(self, text: str, /) -> int:
            if not self.taken:
                raise OSError(5, "Input/output error")
            return super().write(text)

    file, recorder = Gone(), started(Recorder())
    display = Display(recorder, 9, units={"OS": "e"}, console=Console(file=file, force_terminal=terminal))
    before = sys.stderr
    display.start()
    frame(recorder, 1, **VALUES)
    draw(display)
    file.taken = False
    frame(recorder, 2, **VALUES)
    display._shown_at = -math.inf
    draw(display)
    draw(display)
    display.stop()
    assert sys.stderr is before
