"""``xas-agent view``: the dashboard of sessions that run or have ended."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .shared import USAGE, exit_on_error, fail


def view(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Output folders of sessions, or a folder with such folders, as out."),
    ],
    bind: Annotated[
        str | None,
        typer.Option(
            "--bind",
            metavar="HOST:PORT",
            help="Address of the dashboard; port 0 selects a free one. If other machines reach it, everything needs "
            "the token. [default: 127.0.0.1:8642, or the next free port]",
        ),
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="The same as HOST of --bind.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="The same as PORT of --bind.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            help="File with the token, mode 0600. [default: a new token, which is kept in the first folder]",
        ),
    ] = None,
    inherited: Annotated[int | None, typer.Option("--inherited", hidden=True)] = None,
    parent: Annotated[int | None, typer.Option("--parent", hidden=True)] = None,
) -> None:
    """Show sessions in a browser: spectra, descriptors, decisions and their reasons; running ones live.

    It reads the folders, so that sessions are shown that have ended, too. It ends with Ctrl-C; the sessions go on.
    """
    from ..dashboard import require_extra
    from ..view.address import DEFAULT_HOST, address_of

    if bind is not None and (host is not None or port is not None):
        fail("--bind and --host or --port: expected one of them", USAGE)
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        fail(f"{', '.join(missing)}: found no such folder; expected the --out of a session", USAGE)
    with exit_on_error():
        if bind is not None:
            host, port = address_of(bind, "--bind")
        require_extra()
        from ..view.serve import end_with, serve

        if parent is not None:
            end_with(parent)
        serve(folders, host or DEFAULT_HOST, port, token_file, _tell, inherited)


def _tell(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()
