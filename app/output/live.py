"""Live view of a session: a table and a progress bar on a terminal, lines elsewhere."""

import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .recorder import NAME_COLUMNS, OOD_LIMIT, VOLTAGE_FIELDS, Recorder, named

_TABLE_ROWS = 12
_LINE_INTERVAL_S = 5.0


class Display:
    """Shows the latest frames of a recorder on stderr; stdout is for results."""

    def __init__(self, recorder: Recorder, planned: int | None) -> None:
        self._recorder = recorder
        self._console = Console(stderr=True)
        columns = (TextColumn("frames"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self._console)
        self._task = self._progress.add_task("frames", total=planned)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._shown, self._shown_at = 0, time.monotonic()

    def start(self) -> None:
        """Open the live view."""
        if self._live is not None:
            self._live.start()

    def refresh(self) -> None:
        """Show the frames since the last call."""
        frames = self._recorder.frames
        self._progress.update(self._task, completed=len(frames))
        if self._live is not None:
            self._live.update(Group(self._table(), self._progress), refresh=True)
        elif len(frames) > self._shown and time.monotonic() - self._shown_at > _LINE_INTERVAL_S:
            self._line()

    def stop(self) -> None:
        """Show the final state and close the live view."""
        if self._live is not None:
            self.refresh()
            self._live.stop()
        elif len(self._recorder.frames) > self._shown:
            self._line()

    def _line(self) -> None:
        self._shown, self._shown_at = len(self._recorder.frames), time.monotonic()
        row = self._recorder.frames[-1]
        self._console.print(
            f"frame {row['seq_num']} ({named(row)}): OS {row.get('OS_mean', float('nan')):.2f} "
            f"({row.get('OS_lo', float('nan')):.2f}…{row.get('OS_hi', float('nan')):.2f}), "
            f"score {row['ood_score']:.2f}, {row['latency_ms']:.1f} ms",
            highlight=False,
            markup=False,  # a name may have brackets
        )

    def _table(self) -> Table:
        frames = self._recorder.frames
        voltage = next((name for name in VOLTAGE_FIELDS if frames and name in frames[-1]), None)
        latest = frames[-_TABLE_ROWS:]
        names = [name for name in NAME_COLUMNS if len({row[name] for row in latest}) > 1]
        table = Table(expand=True, title=Text(named(*latest)))
        for name in names:
            table.add_column(name.replace("_", " "), overflow="ellipsis", no_wrap=True)
        for name in ("time", "frame", voltage or "voltage", "OS", "90 % interval", "CN", "score", "latency"):
            table.add_column(name, justify="right")
        table.add_column("decision")
        decisions = {round(d["time"], 6): d for d in self._recorder.decisions}
        for row in latest:
            decision = decisions.get(round(row["time"], 6))
            score = f"{row['ood_score']:.2f}"
            table.add_row(
                *(Text(str(row[name] or "")) for name in names),
                time.strftime("%H:%M:%S", time.localtime(row["time"])),
                str(row["seq_num"]),
                f"{row[voltage]:.3f} V" if voltage and voltage in row else "",
                f"{row['OS_mean']:.2f}" if "OS_mean" in row else "",
                f"{row['OS_lo']:.2f}…{row['OS_hi']:.2f}" if "OS_lo" in row else "",
                f"{row['CN_mean']:.1f}" if "CN_mean" in row else "",
                f"[red]{score}[/]" if row["ood_score"] > OOD_LIMIT else score,
                f"{row['latency_ms']:.1f} ms",
                f"[bold]{decision['action']}[/] {decision['status']}" if decision else "",
            )
        return table
