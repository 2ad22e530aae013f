"""``xas-agent report``: sessions as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from ...wording import counted
from .shared import USAGE, exit_on_error, fail


def report(
    folders: Annotated[list[Path], typer.Argument(help="Output folders of run or replay, finished or running.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="HTML file; an earlier one is replaced. [default: report.html in the folder]"),
    ] = None,
) -> None:
    """Write what was measured, found and decided as one HTML page, to keep, print and send."""
    from ..jobs.report import PAGE, write_report

    if out is None and len(folders) > 1:
        fail("--out: expected a file, because several folders are named", USAGE)
    file = out or folders[0] / PAGE
    if file.is_dir():
        fail(f"--out {file}: found a folder, expected a file", USAGE)
    with exit_on_error():
        read = write_report(folders, file)
    for data in read:
        running = ", still running or broken off" if data.unfinished else ""
        made = counted(data.recorder.decisions, "decision")
        typer.echo(f"{data.folder}: {counted(data.recorder.frames, 'frame')}, {made}{running}")
    typer.echo(f"written {file}")
