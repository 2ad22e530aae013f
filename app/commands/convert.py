"""``xas-agent convert``: files of spectra as Bluesky documents."""

from pathlib import Path
from typing import Annotated

import typer

from ...wording import counted
from .options import ColumnOption, EdgeOption, ElementOption, StrictOption
from .shared import USAGE, columns_of, conclude_batch, exit_on_error, fail


def convert(
    files: Annotated[
        list[Path], typer.Argument(help="Files, folders or patterns; with --watch, one folder.", readable=False)
    ],
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
    """
    from ...adapters.files import Batch, conversion, expand, file_names, folder, read_all
    from ...agent.fields import FieldSettings
    from ...agent.types import validate_settings
    from ..signals import end_like_ctrl_c

    batch = Batch()
    with exit_on_error():
        columns = columns_of(column)
        absorber = validate_settings({"element": element, "edge": edge}, FieldSettings, "command line")
        if watch and len(files) != 1:
            fail(f"--watch: found {len(files)} paths, expected one folder", USAGE)
        end_like_ctrl_c()
        found = [] if watch else expand(files)
        if out.resolve() in {file.resolve() for file in found}:
            fail(f"--out {out}: found a file that is read, expected another", USAGE)
        earlier = out.exists()
        spectra = folder.watch(files[0], columns=columns) if watch else read_all(found, columns, batch)
        known = {"element": absorber.element, "edge": absorber.edge, "sample": sample}
        summary = conversion.convert(spectra, out, **known, names=file_names(found))
    if earlier and summary.runs:
        typer.echo(f"{out}: replaces an earlier file", err=True)
    for line in (*summary.notes, *(f"will be set aside: {flaw}" for flaw in summary.flaws)):
        typer.echo(line, err=True)
    spectra, of = counted(summary.spectra, "spectrum", "spectra"), counted(summary.files, "file")
    typer.echo(f"{out}: {spectra} of {of} in {counted(summary.runs, 'run')}")
    batch.interrupted = summary.interrupted and not watch
    conclude_batch(batch, [flaw.partition(": ")[2] for flaw in summary.flaws], summary.spectra, strict)
