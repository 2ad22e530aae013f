"""What a person sees while the agent runs: a live table and a progress bar on a terminal, lines elsewhere."""

import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .recorder import VOLTAGES, Recorder

ROWS = 12
LINE_EVERY_S = 5.0


class Display:
    """Shows a recorder's newest frames; writes to stderr, so that stdout stays for results."""

    def __init__(self, recorder: Recorder, planned: int | None) -> None:
        self._recorder = recorder
        self._console = Console(stderr=True)
        columns = (TextColumn("frames"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self._console)
        self._task = self._progress.add_task("frames", total=planned)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._said, self._said_at = 0, time.monotonic()

    def start(self) -> None:
        """Begin."""
        if self._live is not None:
            self._live.start()

    def refresh(self) -> None:
        """Show what has come since."""
        frames = self._recorder.frames
        self._progress.update(self._task, completed=len(frames))
        if self._live is not None:
            self._live.update(Group(self._table(), self._progress), refresh=True)
        elif len(frames) > self._said and time.monotonic() - self._said_at > LINE_EVERY_S:
            self._line()

    def stop(self) -> None:
        """Show the last state and end."""
        if self._live is not None:
            self.refresh()
            self._live.stop()
        elif len(self._recorder.frames) > self._said:
            self._line()

    def _line(self) -> None:
        self._said, self._said_at = len(self._recorder.frames), time.monotonic()
        row = self._recorder.frames[-1]
        self._console.print(
            f"frame {row['seq_num']}: OS {row.get('OS_mean', float('nan')):.2f} "
            f"({row.get('OS_lo', float('nan')):.2f}…{row.get('OS_hi', float('nan')):.2f}), "
            f"score {row['ood_score']:.2f}, {row['latency_ms']:.1f} ms",
            highlight=False,
        )

    def _table(self) -> Table:
        frames = self._recorder.frames
        voltage = next((v for v in VOLTAGES if frames and v in frames[-1]), None)
        table = Table(expand=True)
        for name in ("time", "frame", voltage or "voltage", "OS", "90 % interval", "CN", "score", "latency"):
            table.add_column(name, justify="right")
        table.add_column("decision")
        decisions = {round(d["time"], 6): d for d in self._recorder.decisions}
        for row in frames[-ROWS:]:
            decision = decisions.get(round(row["time"], 6))
            table.add_row(
                time.strftime("%H:%M:%S", time.localtime(row["time"])),
                str(row["seq_num"]),
                f"{row[voltage]:.3f} V" if voltage and voltage in row else "",
                f"{row['OS_mean']:.2f}" if "OS_mean" in row else "",
                f"{row['OS_lo']:.2f}…{row['OS_hi']:.2f}" if "OS_lo" in row else "",
                f"{row['CN_mean']:.1f}" if "CN_mean" in row else "",
                f"[red]{row['ood_score']:.2f}[/]" if row["ood_score"] > 1 else f"{row['ood_score']:.2f}",
                f"{row['latency_ms']:.1f} ms",
                f"[bold]{decision['action']}[/] {decision['status']}" if decision else "",
            )
        return table
