"""``xas-agent rebuild``: tables and picture of a session from its documents."""

from pathlib import Path
from typing import Annotated

import typer

from ...wording import counted
from .shared import exit_on_error


def rebuild(
    folder: Annotated[Path, typer.Argument(help="Output folder of run or replay; its agent must have ended.")],
) -> None:
    """Write descriptors.csv, decisions.csv and operando.png again, from documents.jsonl."""
    from ..jobs.rebuild import rebuild as rebuild_folder

    with exit_on_error():
        recorder = rebuild_folder(folder)
    typer.echo(f"{counted(recorder.frames, 'frame')}, {counted(recorder.decisions, 'decision')}")
    typer.echo(f"written {folder}/")
