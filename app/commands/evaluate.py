"""``xas-agent evaluate``: a model judged on data with known answers."""

from pathlib import Path
from typing import Annotated

import typer

from .options import DataOption
from .process import set_up_torch
from .shared import refuse_idle, told


def evaluate(
    data: DataOption,
    model: Annotated[str, typer.Argument(help="Model name or folder.")] = "cu-k",
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the report. [default: MODEL-report]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The shipped model and forests only: minutes.")] = False,
    config: Annotated[str, typer.Option("--config", help="full, quick or a YAML file.")] = "full",
    only: Annotated[list[str] | None, typer.Option("--only", help="One study; may be repeated.")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Trainings at a time. [default: cores]")] = None,
    split: Annotated[str | None, typer.Option(help="Only print figures on the rows of this split.")] = None,
    dataset: Annotated[str | None, typer.Option(help="NAME of the data; else the one trained on.")] = None,
) -> None:
    """Judge a model and write a report: competitors, robustness, transfer, calibration, what it looks at.

    Long trainings are kept in the report folder: stopped, the same command goes on where it was.
    """
    with told():
        other = None if config == "full" else config
        if quick:
            refuse_idle("with --quick", config=other)
        if split or dataset:
            idle = {"out": out, "quick": quick or None, "config": other, "only": only or None, "jobs": jobs}
            refuse_idle("with --split or --dataset", **idle)
            from ..jobs.evaluate import evaluate_model

            set_up_torch(None)
            return evaluate_model(model, data, split or "val", dataset)
        from ..jobs.evaluate import report_on

        set_up_torch(1)  # the jobs are processes of one thread each
        folder = out or Path(f"{Path(model).name}-report")
        typer.echo(report_on(model, data, folder, "quick" if quick else config, only or (), jobs))
