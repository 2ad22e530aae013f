"""``xas-agent convert``: files of spectra as Bluesky documents."""

from pathlib import Path
from typing import Annotated

import typer

from .options import ColumnOption, EdgeOption, ElementOption, StrictOption
from .shared import SET_ASIDE, USAGE, columns_of, exit_on_error, fail


def convert(
    files: Annotated[list[Path], typer.Argument(help="Files of spectra; with --watch, one folder.")],
    out: Annotated[Path, typer.Option("--out", help="File of documents to write, .jsonl or .msgpack.")],
    column: ColumnOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    sample: Annotated[str | None, typer.Option(help="Name of the sample. [default: from the files]")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Also convert files that are added to the folder, until Ctrl-C.")
    ] = False,
    strict: StrictOption = False,
) -> None:
    """Convert files of spectra to Bluesky documents.

    The formats are XDI, text columns, SSRL, SPEC, Athena, NeXus, HDF5 and npz.

    Example: xas-agent convert scan*.xdi --out series.jsonl
    """
    from ...adapters.files import conversion, folder
    from ..session import terminate_like_ctrl_c

    with exit_on_error():
        columns = columns_of(column)
        if watch and len(files) != 1:
            fail(f"--watch: found {len(files)} paths, expected one folder", USAGE)
        if not watch and (folders := [str(path) for path in files if path.is_dir()]):
            fail(f"{folders[0]}: found a folder, expected files; --watch converts the files of a folder", USAGE)
        terminate_like_ctrl_c()
        spectra = folder.watch(files[0], columns=columns) if watch else conversion.read_all(files, columns)
        summary = conversion.convert(spectra, out, element=element, edge=edge, sample=sample)
    for line in (*summary.notes, *(f"will be set aside: {flaw}" for flaw in summary.flaws)):
        typer.echo(line, err=True)
    typer.echo(f"{out}: {summary.spectra} spectra of {summary.files} files in {summary.runs} runs")
    if strict and summary.flaws:
        raise typer.Exit(SET_ASIDE)
