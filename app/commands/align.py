"""``xas-agent align``: spectra of files on a model's grid."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ...wording import counted
from .options import ColumnOption, ConfigOption, EdgeOption, ElementOption, FilesArgument, ModelOption, StrictOption
from .shared import USAGE, columns_of, conclude_batch, exit_on_error, fail, settings_of


def align(
    files: FilesArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder for aligned spectra, alignment.csv and figures.")],
    column: ColumnOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    form: Annotated[
        Literal["npz", "csv", "xdi"],
        typer.Option("--format", help="npz: one file per model; csv or xdi: one file per spectrum."),
    ] = "npz",
    pictures: Annotated[bool, typer.Option(help="Whether to draw each spectrum with its alignment.")] = True,
    config: ConfigOption = None,
    strict: StrictOption = False,
) -> None:
    """Calibrate and normalise spectra, resample them to the grid of a model, and draw the alignment."""
    from ...adapters.files import Batch, expand
    from ..jobs.align import align_files, draw_all, write_aligned
    from ..signals import end_like_ctrl_c, uninterrupted

    batch = Batch()
    with exit_on_error():
        settings = settings_of(config, model, element, edge)
        end_like_ctrl_c()
        found = expand(files)
        if out.resolve() in {file.resolve() for file in files}:
            fail(f"--out {out}: found the folder that is read, expected another", USAGE)
        earlier = set(out.iterdir()) if out.is_dir() else set()
        alignments = align_files(found, settings, columns_of(column), batch)
        with uninterrupted():
            written = write_aligned(alignments, out, form)
        if pictures and not batch.interrupted:  # a person who interrupts wants no long work
            written += draw_all(alignments, out, batch)
    for alignment in alignments:
        refusal = alignment.refusal
        result = f"set aside: {refusal}" if refusal else ", ".join(alignment.flags) or "aligned"
        typer.echo(f"{alignment.id}: {result}")
    replaced = f", of which {count} replace earlier ones" if (count := len(earlier.intersection(written))) else ""
    typer.echo(f"{counted(len(written), 'file')} and alignment.csv in {out}/{replaced}")
    conclude_batch(batch, [str(a.refusal) for a in alignments if a.refusal], len(alignments), strict)
