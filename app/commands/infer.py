"""``xas-agent infer``: the descriptors of spectra in files."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..._version import __version__
from ..ask import exchange
from .options import (
    ColumnOption,
    ConfigOption,
    EdgeOption,
    ElementOption,
    FilesArgument,
    ModelOption,
    SocketOption,
    StrictOption,
)
from .process import begin_quickly, set_up_torch
from .shared import (
    INTERRUPTED,
    SET_ASIDE,
    UNREACHABLE,
    USAGE,
    columns_of,
    conclude_batch,
    exit_on_error,
    fail,
    refuse_unused,
    say_refused,
    say_set_aside,
    settings_of,
)

_MAX_ANSWER = 2**30
"""Largest answer of a server, bytes."""


def infer(
    files: FilesArgument,
    column: ColumnOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    theory: Annotated[
        bool,
        typer.Option("--theory", help="The spectra are computed, or aligned by xas-agent align: do not align them."),
    ] = False,
    form: Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="Output on stdout.")] = "table",
    everything: Annotated[
        bool, typer.Option("--all", help="Include descriptors without a meaning for a mixture of sites (PSGO, CN2).")
    ] = False,
    config: ConfigOption = None,
    strict: StrictOption = False,
    socket: SocketOption = None,
) -> None:
    """Estimate the descriptors of spectra in files."""
    if socket is not None:
        refuse_unused("with --socket: the server has its own", config=config)
        asked: dict[str, Any] = {"columns": columns_of(column), "model": model, "element": element, "edge": edge}
        _ask_server(socket, files, {**asked, "theory": theory, "everything": everything, "form": form}, strict)
        return
    begin_quickly()
    from ...adapters.files import Batch, expand
    from ..jobs.infer import infer_files, render
    from ..signals import end_like_ctrl_c, uninterrupted

    batch = Batch()
    with exit_on_error():
        settings = settings_of(config, model, element, edge, single_site=everything)
        set_up_torch(settings.model.threads, settings.serving.precision, settings.model.engine)
        end_like_ctrl_c()
        answers = infer_files(expand(files), settings, theory=theory, columns=columns_of(column), batch=batch)
        with uninterrupted():
            render(answers, form)
    conclude_batch(batch, [a["set_aside"] for a in answers if "set_aside" in a], len(answers), strict)


def _ask_server(socket: Path, files: list[Path], asked: dict[str, Any], strict: bool) -> None:
    """Print the answer of ``xas-agent serve``; this process imports nothing that is heavy."""
    shown = sys.stdout.isatty() or os.environ.get("COLUMNS")
    request = {
        "command": "infer",
        "files": [str(file.absolute()) for file in files],
        "width": shutil.get_terminal_size().columns if shown else 0,
        **asked,
    }
    try:
        answer = exchange(socket, request, None, _MAX_ANSWER)
    except (OSError, ValueError) as error:
        fail(f"{socket}: no answer ({error}); start xas-agent serve, or leave out --socket", UNREACHABLE)
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
    if (version := answer.get("version")) != __version__:
        fail(f"{socket}: found a server of version {version}, expected {__version__}; start it again", USAGE)
    if not answer["ok"]:
        fail(answer["error"], USAGE)
    for file, note in answer["notes"]:
        typer.echo(f"xas-agent: {file}: {note}", err=True)
    typer.echo(answer["text"], nl=False)
    say_refused(*answer["refused"])
    say_set_aside(answer["set_aside"], answer["spectra"])
    if strict and (answer["refused"][0] or answer["set_aside"]):
        raise typer.Exit(SET_ASIDE)
