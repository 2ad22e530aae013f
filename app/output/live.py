"""Live view of a session: a table and a progress bar on a terminal, lines elsewhere."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ...agent.decide import Band, Rule, Threshold, Unfamiliar, triggers_in
from .recorder import NAME_COLUMNS, OOD_LIMIT, VOLTAGE_FIELDS, Recorder, leading, named

_LINE_INTERVAL_S = 5.0
_BARS = 4
"""Number of rules whose bars are shown."""


def bars_of(rules: Sequence[Rule], units: Mapping[str, str]) -> list[str]:
    """Return, for each rule that judges levels, the levels in words.

    Parameters
    ----------
    units : units of the quantities, by name
    """
    found: list[str] = []
    for rule in rules:
        parts = [p for p in triggers_in(rule.trigger) if isinstance(p, Threshold | Band | Unfamiliar)]
        units_of = [f" {units[p.quantity]}" if p.quantity in units else "" for p in parts]
        bars = ", ".join(f"{p.quantity} {p.bar(u)}" for p, u in zip(parts, units_of, strict=True))
        found += [f"{rule.action} ({rule.name}): {bars}"] if bars else []
    return found


class Display:
    """Shows the latest frames of a recorder on stderr; stdout is for results.

    Parameters
    ----------
    recorder : Recorder
    planned : int or None
        Expected number of frames.
    points : callable
        Returns the number of points of the step scan in progress, and of the planned ones (0 if unknown), or None.
    paused : callable
        Returns why the experiment is paused and what ends it, in words; empty if it is not.
    bars : sequence of str
        The bars of the rules, in words.
    """

    def __init__(
        self,
        recorder: Recorder,
        planned: int | None,
        points: Callable[[], tuple[int, int] | None] = lambda: None,
        paused: Callable[[], str] = lambda: "",
        bars: Sequence[str] = (),
    ) -> None:
        self._recorder, self._points, self._paused = recorder, points, paused
        more = [f"and {len(bars) - _BARS} more rules"] if len(bars) > _BARS else []
        self._bars = [Text(bar, style="dim", no_wrap=True, overflow="ellipsis") for bar in [*bars[:_BARS], *more]]
        self._console = Console(stderr=True)
        columns = (TextColumn("frames"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self._console)
        self._task = self._progress.add_task("frames", total=planned)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._shown, self._shown_at, self._shown_scan, self._shown_paused = 0, time.monotonic(), "", ""

    def start(self) -> None:
        """Open the live view."""
        if self._live is not None:
            self._live.start()

    def refresh(self) -> None:
        """Show the frames since the last call."""
        frames = self._recorder.frames
        self._progress.update(self._task, completed=frames)
        scan, paused = self._scan(), self._paused()
        if self._live is not None:
            notes = [Text(paused, style="bold reverse")] if paused else []
            if (failed := self._recorder.notifications_failed) > 0:  # elsewhere the log says so
                text = f"{failed} NOTIFICATIONS FAILED, the latest: {self._recorder.notification_failure}"
                notes.append(Text(text, style="bold red"))
            notes += [Text(scan)] if scan else []
            self._live.update(Group(self._table(), *self._bars, *notes, self._progress), refresh=True)
        elif bool(paused) != bool(self._shown_paused):
            self._shown_paused = paused
            self._console.print(paused or "not paused any more", highlight=False, markup=False)
        elif time.monotonic() - self._shown_at > _LINE_INTERVAL_S:
            if frames > self._shown:
                self._line()
            elif scan and scan != self._shown_scan:
                self._shown_scan, self._shown_at = scan, time.monotonic()
                self._console.print(scan, highlight=False, markup=False)

    def stop(self) -> None:
        """Show the final state and close the live view."""
        if self._live is not None:
            self.refresh()
            self._live.stop()
        elif self._recorder.frames > self._shown:
            self._line()

    def _line(self) -> None:
        self._shown, self._shown_at = self._recorder.frames, time.monotonic()
        row = self._recorder.latest[-1]
        first = leading(row)
        mean, lo, hi = (row.get(f"{first}_{part}", float("nan")) for part in ("mean", "lo", "hi"))
        self._console.print(
            f"frame {row['seq_num']} ({named(row)}): {first} {mean:.2f} ({lo:.2f}…{hi:.2f}), "
            f"score {row['ood_score']:.2f}, {row['latency_ms']:.1f} ms",
            highlight=False,
            markup=False,  # a name may have brackets
        )

    def _scan(self) -> str:
        """Return the number of points of the step scan in progress, in words; empty between scans."""
        count, planned = self._points() or (0, 0)
        return f"scan in progress: {count} of {planned or 'an unknown number of'} points" if count else ""

    def _table(self) -> Table:
        """Return the latest frames; names in which they differ, and decisions, take the place of some numbers."""
        with self._recorder.lock:
            latest = list(self._recorder.latest)
            decided = list(self._recorder.latest_decisions.values())
        voltage = next((name for name in VOLTAGE_FIELDS if latest and name in latest[-1]), None)
        differ = [name for name in NAME_COLUMNS if len({row[name] for row in latest}) > 1]
        at = {round(d["time"], 6): f"[bold]{d['action']}[/] {d['status']}" for d in decided}
        decisions = [at.get(round(row["time"], 6), "") for row in latest]
        left_out = {"CN", "latency"} if differ or any(decisions) else set[str]()
        left_out |= {"time"} if differ else set()
        anchored = any(_anchored(row) in row for row in latest)
        left_out |= {"CN", "latency"} if anchored else set()
        left_out |= {"time"} if anchored and any(decisions) else set()
        left_out |= {"90 % interval"} if anchored and differ and any(decisions) else set()
        table = Table(expand=True, title=Text(named(*latest)))
        if differ:
            table.add_column("measured")
        for name in (
            name for row in latest[-1:] for name in _numbers(row, voltage, anchored) if name not in left_out
        ):
            table.add_column(name, justify="right", no_wrap=True)
        if any(decisions):
            table.add_column("decision")
        for row, decision in zip(latest, decisions, strict=True):
            about = {name: row[name] if name in differ else "" for name in NAME_COLUMNS}
            numbers = [text for name, text in _numbers(row, voltage, anchored).items() if name not in left_out]
            names = [Text(named(about))] if differ else []
            table.add_row(*names, *numbers, *([decision] if any(decisions) else []))
        return table


def _anchored(row: Mapping[str, Any]) -> str:
    """Return the name of the value that is shown first, on the footing of the anchors."""
    return f"{leading(row)}_anchored_mean"


def _numbers(row: Mapping[str, Any], voltage: str | None, anchored: bool) -> dict[str, str]:
    """Return the numbers of a frame by column."""
    score, first = f"{row['ood_score']:.2f}", leading(row)
    return {
        "time": time.strftime("%H:%M:%S", time.localtime(row["time"])),
        "frame": str(row["seq_num"]),
        **({voltage: f"{row[voltage]:.3f} V" if voltage in row else ""} if voltage else {}),
        first: f"{row[f'{first}_mean']:.2f}" if f"{first}_mean" in row else "",
        "90 % interval": f"{row[f'{first}_lo']:.2f}…{row[f'{first}_hi']:.2f}" if f"{first}_lo" in row else "",
        **({"anchored": f"{row[_anchored(row)]:.2f}" if _anchored(row) in row else ""} if anchored else {}),
        "CN": f"{row['CN_mean']:.1f}" if "CN_mean" in row else "",
        "score": f"[red]{score}[/]" if row["ood_score"] > OOD_LIMIT else score,
        "latency": f"{row['latency_ms']:.1f} ms",
    }
