"""``xas-agent evaluate``: a report on a model, from data with known descriptors."""

from pathlib import Path
from typing import Annotated

import typer

from .options import DataOption
from .process import set_up_torch
from .shared import exit_on_error, refuse_unused


def evaluate(
    data: DataOption,
    model: Annotated[str, typer.Argument(help="Model by name or folder, e.g. ni-k.")] = "cu-k",
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the report. [default: MODEL-report]")] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A short report of a few minutes: the model and tree-based competitors (--config quick)."
        ),
    ] = False,
    config: Annotated[
        str, typer.Option("--config", help="Evaluation config: full (hours), quick (minutes), or a YAML file.")
    ] = "full",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Only this study, e.g. uncertainty. Repeatable. [default: all of the config]"),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Number of trainings at the same time. [default: number of cores]"),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Print scores on the rows of this split, e.g. val, without a report.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Print scores on this data set, by NAME, without a report. [default: training data set]"),
    ] = None,
    beside: Annotated[
        str | None,
        typer.Option(
            help="Print scores on the validation rows beside those of a competitor trained on the same rows, e.g. "
            "extra-trees, without a report."
        ),
    ] = None,
) -> None:
    """Evaluate a model and write a report.

    The report compares the model with competitors and shows its robustness, transfer, calibration and latent space.
    The report folder keeps finished trainings: after an interruption the same command continues. All this is computed
    spectra; xas-agent standards judges models on measured ones.
    """
    with exit_on_error():
        other = None if config == "full" else config
        if quick:
            refuse_unused("with --quick", config=other)
        idle = {"out": out, "quick": quick or None, "config": other, "only": only or None, "jobs": jobs}
        if beside:
            refuse_unused("with --beside", split=split, dataset=dataset, **idle)
            from ..jobs.beside import compare

            set_up_torch(None)
            return compare(model, data, beside)
        if split or dataset:
            refuse_unused("with --split or --dataset", **idle)
            from ..jobs.evaluate import evaluate_model

            set_up_torch(None)
            return evaluate_model(model, data, split or "val", dataset)
        from ..jobs.evaluate import report_on

        set_up_torch(1)  # each job is a process with one thread
        folder = out or Path(f"{Path(model).name}-report")
        typer.echo(report_on(model, data, folder, "quick" if quick else config, only or (), jobs))
