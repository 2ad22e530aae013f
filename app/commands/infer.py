"""``xas-agent infer``: the descriptors of spectra in files."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import ColumnOption, ConfigOption, EdgeOption, ElementOption, ModelOption, StrictOption
from .process import set_up_torch
from .shared import SET_ASIDE, columns_of, settings_of, told


def infer(
    files: Annotated[list[Path], typer.Argument(help="Files of spectra: docs/reference/files.md.")],
    column: ColumnOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    theory: Annotated[bool, typer.Option("--theory", help="Already on FEFF's energies and normalisation.")] = False,
    form: Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="table, json or csv.")] = "table",
    everything: Annotated[bool, typer.Option("--all", help="PSGO and CN2 of measured spectra too.")] = False,
    config: ConfigOption = None,
    strict: StrictOption = False,
) -> None:
    """Estimate the descriptors of spectra in files."""
    from ..jobs.infer import infer_files, render

    with told():
        settings = settings_of(config, model, element, edge, single_site=everything)
        set_up_torch(settings.model.threads)
        answers = infer_files(files, settings, theory=theory, columns=columns_of(column))
        render(answers, form)
    if strict and any("set_aside" in a for a in answers):
        raise typer.Exit(SET_ASIDE)
