"""``xas-agent convert``: files of spectra as Bluesky documents."""

from pathlib import Path
from typing import Annotated

import typer

from .options import ColumnOption, EdgeOption, ElementOption, StrictOption
from .shared import SET_ASIDE, USAGE, columns_of, exit_on_error, fail, report_refused


def convert(
    files: Annotated[list[Path], typer.Argument(help="Files, folders or patterns; with --watch, one folder.")],
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
    from ...adapters.files import batch, conversion, folder
    from ...adapters.formats import SpectrumFileError
    from ..session import terminate_like_ctrl_c

    refused: list[SpectrumFileError] = []
    with exit_on_error():
        columns = columns_of(column)
        if watch and len(files) != 1:
            fail(f"--watch: found {len(files)} paths, expected one folder", USAGE)
        terminate_like_ctrl_c()
        if watch:
            spectra = folder.watch(files[0], columns=columns)
        else:
            spectra = batch.read_all(batch.expand(files), columns, refused)
        summary = conversion.convert(spectra, out, element=element, edge=edge, sample=sample)
    for line in (*summary.notes, *(f"will be set aside: {flaw}" for flaw in summary.flaws)):
        typer.echo(line, err=True)
    typer.echo(f"{out}: {summary.spectra} spectra of {summary.files} files in {summary.runs} runs")
    report_refused(refused)
    if strict and (refused or summary.flaws):
        raise typer.Exit(SET_ASIDE)
