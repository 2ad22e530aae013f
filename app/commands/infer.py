"""``xas-agent infer``: the descriptors of spectra in files."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import ColumnOption, ConfigOption, EdgeOption, ElementOption, ModelOption, StrictOption
from .process import set_up_torch
from .shared import SET_ASIDE, columns_of, exit_on_error, report_refused, settings_of


def infer(
    files: Annotated[
        list[Path],
        typer.Argument(help="Files, folders or patterns: XDI, text columns, SSRL, SPEC, Athena, NeXus, HDF5 or npz."),
    ],
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
) -> None:
    """Estimate the descriptors of spectra in files.

    Example: xas-agent infer NiO.xdi --model ni-k --format json
    """
    from ...adapters.files import expand
    from ...adapters.formats import SpectrumFileError
    from ..jobs.infer import infer_files, render

    refused: list[SpectrumFileError] = []
    with exit_on_error():
        settings = settings_of(config, model, element, edge, single_site=everything)
        set_up_torch(settings.model.threads)
        answers = infer_files(expand(files), settings, theory=theory, columns=columns_of(column), refused=refused)
        render(answers, form)
    report_refused(refused)
    if strict and (refused or any("set_aside" in a for a in answers)):
        raise typer.Exit(SET_ASIDE)
