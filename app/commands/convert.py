"""``xas-agent convert``: files of spectra as Bluesky documents."""

from pathlib import Path
from typing import Annotated

import typer

from .options import ColumnOption, EdgeOption, ElementOption, StrictOption
from .shared import SET_ASIDE, USAGE, columns_of, fail, told


def convert(
    files: Annotated[list[Path], typer.Argument(help="Files of spectra; with --watch one folder.")],
    out: Annotated[Path, typer.Option("--out", help="File of documents, .jsonl or .msgpack.")],
    column: ColumnOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    sample: Annotated[str | None, typer.Option(help="Sample; else from the files.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with what comes into the folder.")] = False,
    strict: StrictOption = False,
) -> None:
    """Turn files of spectra into Bluesky documents: XDI, text columns, SSRL, SPEC, Athena, NeXus and HDF5, npz."""
    from ...adapters.files import conversion, folder
    from ..session import terminate_like_ctrl_c

    with told():
        columns = columns_of(column)
        if watch and len(files) != 1:
            fail(f"--watch: found {len(files)} paths, expected one folder", USAGE)
        if not watch and (folders := [str(path) for path in files if path.is_dir()]):
            fail(f"{folders[0]}: found a folder, expected files; --watch goes on with what comes into one", USAGE)
        terminate_like_ctrl_c()
        found = folder.watch(files[0], columns=columns) if watch else conversion.read_all(files, columns)
        done = conversion.convert(found, out, element=element, edge=edge, sample=sample)
    for line in (*done.notes, *(f"will be set aside: {flaw}" for flaw in done.flaws)):
        typer.echo(line, err=True)
    typer.echo(f"{out}: {done.spectra} spectra of {done.files} files in {done.runs} runs")
    if strict and done.flaws:
        raise typer.Exit(SET_ASIDE)
