"""``xas-agent view``: the dashboard of sessions that run or have ended."""

import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from .shared import USAGE, exit_on_error, fail

MISSING = "the dashboard needs the extra dashboard: pip install 'xas-agent[dashboard]'"


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
    parent: Annotated[int | None, typer.Option("--parent", hidden=True)] = None,
) -> None:
    """Show sessions in a browser: spectra, descriptors, decisions and their reasons; running ones live.

    It reads the folders, so that ended sessions are shown too. It ends with Ctrl-C; no session is affected.

    Example: xas-agent view out
    """
    if bind is not None and (host is not None or port is not None):
        fail("--bind and --host or --port: expected one of them", USAGE)
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        fail(f"{', '.join(missing)}: found no such folder; expected the --out of a session", USAGE)
    if bind is not None:
        host, port = address_of(bind)
    require_extra()
    from ..view.serve import end_with, serve

    if parent is not None:
        end_with(parent)
    with exit_on_error():
        serve(folders, host or "127.0.0.1", port, token_file, _tell)


def address_of(bind: str, option: str = "--bind") -> tuple[str, int | None]:
    """Return host and port of HOST:PORT, HOST or :PORT; without a port the second is None."""
    host, sign, port = bind.rpartition(":") if not bind.endswith("]") else (bind, "", "")
    if not sign:
        host, port = bind, ""
    if port and not (port.isascii() and port.isdigit() and int(port) <= 65535):
        fail(f"{option} {bind}: expected HOST:PORT, such as 127.0.0.1:8642", USAGE)
    return host.strip("[]") or "127.0.0.1", int(port) if port else None


def require_extra() -> None:
    """Fail if the extra of the dashboard is not installed."""
    from importlib.util import find_spec

    if missing := [name for name in ("fastapi", "uvicorn", "pyarrow") if find_spec(name) is None]:
        fail(f"found no {', '.join(missing)}: {MISSING}", USAGE)


def _tell(address: str, with_token: str) -> None:
    from ..view.access import is_loopback

    typer.echo(f"dashboard  {with_token}")
    if is_loopback(urlsplit(address).hostname or ""):
        typer.echo(f"           {address} shows it without the token, which orders need")
    sys.stdout.flush()
