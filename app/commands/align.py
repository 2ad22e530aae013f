"""``xas-agent align``: spectra in files on a model's grid."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import ColumnOption, ConfigOption, EdgeOption, ElementOption, ModelOption, StrictOption
from .process import set_up_torch
from .shared import SET_ASIDE, columns_of, settings_of, told


def align(
    files: Annotated[list[Path], typer.Argument(help="Files of spectra: docs/reference/files.md.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for spectra, alignment.csv and pictures.")],
    column: ColumnOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    form: Annotated[
        Literal["npz", "csv", "xdi"], typer.Option("--format", help="One npz per model; csv or xdi per spectrum.")
    ] = "npz",
    pictures: Annotated[bool, typer.Option(help="Draw each spectrum.")] = True,
    config: ConfigOption = None,
    strict: StrictOption = False,
) -> None:
    """Put spectra on a model's grid, and draw how: raw μ with its lines, E0, the normalised curve."""
    from ..jobs.align import align_files, draw_all, write_aligned

    with told():
        settings = settings_of(config, model, element, edge)
        set_up_torch(settings.model.threads)
        found = align_files(files, settings, columns_of(column))
        written = write_aligned(found, out, form)
        if pictures:
            written += draw_all(found, out)
    for f in found:
        what = f"set aside: {f.refusal}" if f.refusal else ", ".join(f.flags) or "aligned"
        typer.echo(f"{f.spectrum.id}: {what}")
    typer.echo(f"{len(written)} files and alignment.csv in {out}/")
    if strict and any(f.refusal for f in found):
        raise typer.Exit(SET_ASIDE)
