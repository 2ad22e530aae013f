"""``xas-agent align``: spectra of files on a model's grid."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import ColumnOption, ConfigOption, EdgeOption, ElementOption, ModelOption, StrictOption
from .process import set_up_torch
from .shared import columns_of, conclude_batch, exit_on_error, settings_of


def align(
    files: Annotated[
        list[Path],
        typer.Argument(help="Files, folders or patterns: XDI, text columns, SSRL, SPEC, Athena, NeXus, HDF5 or npz."),
    ],
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
    """Calibrate and normalise spectra, resample them to the grid of a model, and draw the alignment.

    Example: xas-agent align NiO.xdi --out aligned
    """
    from ...adapters.files import Batch, expand
    from ..jobs.align import align_files, distinct_ids, draw_all, write_aligned
    from ..session import terminate_like_ctrl_c, uninterrupted

    batch = Batch()
    with exit_on_error():
        settings = settings_of(config, model, element, edge)
        set_up_torch(settings.model.threads)
        terminate_like_ctrl_c()
        alignments = align_files(expand(files), settings, columns_of(column), batch)
        with uninterrupted():
            written = write_aligned(alignments, out, form)
        if pictures:
            written += draw_all(alignments, out, batch)
    for id, alignment in zip(distinct_ids([a.spectrum for a in alignments]), alignments, strict=True):
        refusal = alignment.refusal
        result = f"set aside: {refusal}" if refusal else ", ".join(alignment.flags) or "aligned"
        typer.echo(f"{id}: {result}")
    typer.echo(f"{len(written)} files and alignment.csv in {out}/")
    conclude_batch(batch, [str(a.refusal) for a in alignments if a.refusal], len(alignments), strict)
