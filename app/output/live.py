"""Live view of a session: lines redrawn below the log on a terminal, plain lines elsewhere.

It shares the terminal with the log and its history; a full-screen application would hide them.
"""

import io
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from ...agent.types import get_logger
from .pen import Pen, needs_ascii
from .recorder import Recorder, leading, named
from .screen import Facts, Screen

_log = get_logger()

_LINE_INTERVAL_S = 5.0
_CHANGED_S = 0.2
"""Shortest time between two drawings if there is news, s."""
_SAME_S = 0.5
"""Shortest time between two drawings without news, s."""
_FOR_THE_LOG = 5
"""Divisor of the height: one line in so many is left for the log."""
_LEAST_FOR_THE_LOG = 2


class _Nowhere(io.StringIO):
    """A file that discards everything."""

    def write(self, s: str, /) -> int:
        return len(s)


class Display:
    """Shows the progress of a session on stderr, since stdout is for results.

    If the terminal goes away, as with a broken ssh connection, only the view is lost, never the session.

    Parameters
    ----------
    recorder : Recorder
    planned : int or None
        Expected number of frames.
    facts : callable
        Returns at once further facts on the session.
    units : mapping of str to str
        Units of the quantities, by name.
    console : Console, optional
        stderr by default.
    """

    def __init__(
        self,
        recorder: Recorder,
        planned: int | None,
        facts: Callable[[], Facts] = Facts,
        units: Mapping[str, str] | None = None,
        console: Console | None = None,
    ) -> None:
        self._recorder, self._facts = recorder, facts
        self._console = console or Console(stderr=True)
        self._screen = Screen(recorder, planned, units or {}, needs_ascii(self._console.encoding, os.environ))
        drawn = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop") if drawn else None
        self._drawn: list[Text] = []
        self._drawn_at, self._drawn_of, self._width = -math.inf, (), self._console.width
        self._shown, self._shown_at, self._shown_scan, self._shown_paused = 0, time.monotonic(), "", ""

    def start(self) -> None:
        """Open the live view."""
        if self._live is not None:
            with self._unless_gone():
                self._live.start()

    def refresh(self) -> None:
        """Show news; may be called often, since it draws only as often as a person can follow."""
        with self._unless_gone():
            if self._live is not None:
                self._refresh_screen(self._live)
            else:
                self._refresh_lines(self._facts())

    def stop(self) -> None:
        """Show the final state and close the live view."""
        with self._unless_gone():
            if self._live is None:
                if self._recorder.frames > self._shown:
                    self._line()
                return
            self._draw(self._live, replace(self._facts(), ended=True))
        if self._live is not None:
            with self._unless_gone():
                self._live.stop()  # also ends the redirection of stdout and stderr

    @contextmanager
    def _unless_gone(self) -> Iterator[None]:
        """Discard all output from now on if the terminal accepts no more."""
        try:
            yield
        except OSError as error:
            self._console.file = _Nowhere()
            _log.warning("the terminal is gone; the session goes on", detail=error.strerror or str(error))

    def _refresh_screen(self, live: Live) -> None:
        elapsed_s = time.monotonic() - self._drawn_at
        if elapsed_s < _CHANGED_S:
            return
        facts, recorder = self._facts(), self._recorder
        counts = recorder.numbered, sum(recorder.statuses.values()), facts.connected, facts.paused, len(facts.waiting)
        of = (*counts, self._console.size)
        if of == self._drawn_of and elapsed_s < _SAME_S:
            return
        self._drawn_of = of
        self._draw(live, facts)

    def _draw(self, live: Live, facts: Facts) -> None:
        self._drawn_at = time.monotonic()
        width, height = self._console.size
        if width != self._width:
            self._erase_folded(width)
        log = max(_LEAST_FOR_THE_LOG, height // _FOR_THE_LOG)
        self._drawn, self._width = self._screen.lines(facts, width, max(height - log, 1)), width
        live.update(Text("\n", no_wrap=True, overflow="crop").join(self._drawn), refresh=True)

    def _erase_folded(self, width: int) -> None:
        """Erase lines that a narrower terminal has folded into more lines than will be overwritten."""
        folded = sum(max(-(-line.cell_len // width), 1) for line in self._drawn) - len(self._drawn)
        if folded > 0:
            up = [(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)] * folded
            self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up))

    def _refresh_lines(self, facts: Facts) -> None:
        scan = _scan(facts)
        paused = f"PAUSED for {facts.paused_s:.0f} s {facts.paused}. xas-agent resume goes on" if facts.paused else ""
        if bool(paused) != bool(self._shown_paused):
            self._shown_paused = paused
            self._say(paused or "not paused any more")
        elif time.monotonic() - self._shown_at > _LINE_INTERVAL_S:
            if self._recorder.frames > self._shown:
                self._line()
            elif scan and scan != self._shown_scan:
                self._shown_scan, self._shown_at = scan, time.monotonic()
                self._say(scan)

    def _line(self) -> None:
        self._shown, self._shown_at = self._recorder.frames, time.monotonic()
        row: Mapping[str, Any] = self._recorder.latest[-1]
        first = leading(row)
        mean, lo, hi = (row.get(f"{first}_{part}", float("nan")) for part in ("mean", "lo", "hi"))
        self._say(
            f"frame {row['seq_num']} ({named(row)}): {first} {mean:.2f} ({lo:.2f}…{hi:.2f}), "
            f"score {row['ood_score']:.2f}, {row['latency_ms']:.1f} ms"
        )

    def _say(self, line: str) -> None:
        plain = Pen(self._console.width, self._screen.ascii).plain(line)
        self._console.print(plain, highlight=False, markup=False)  # a name may contain brackets


def _scan(facts: Facts) -> str:
    """Return the number of points of the step scan in progress, in words; empty between scans."""
    count, planned = facts.points or (0, 0)
    return f"scan in progress: {count} of {planned or 'an unknown number of'} points" if count else ""
