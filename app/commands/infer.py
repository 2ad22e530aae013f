"""``xas-agent infer``: the descriptors of spectra in files."""

from typing import Annotated, Literal

import typer

from .options import ColumnOption, ConfigOption, EdgeOption, ElementOption, FilesArgument, ModelOption, StrictOption
from .process import set_up_torch
from .shared import columns_of, conclude_batch, exit_on_error, settings_of


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
) -> None:
    """Estimate the descriptors of spectra in files."""
    from ...adapters.files import Batch, expand
    from ..jobs.infer import infer_files, render
    from ..session import end_like_ctrl_c, uninterrupted

    batch = Batch()
    with exit_on_error():
        settings = settings_of(config, model, element, edge, single_site=everything)
        set_up_torch(settings.model.threads)
        end_like_ctrl_c()
        answers = infer_files(expand(files), settings, theory=theory, columns=columns_of(column), batch=batch)
        with uninterrupted():
            render(answers, form)
    conclude_batch(batch, [a["set_aside"] for a in answers if "set_aside" in a], len(answers), strict)
