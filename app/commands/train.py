"""``xas-agent train``: a model from FEFF rows."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import DataOption
from .shared import exit_on_error


def train(
    config: Annotated[
        Path, typer.Argument(help="Training config: a YAML file, or the name of a shipped one, e.g. cu-k.")
    ],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder in which the model folder is written.")] = Path("trained"),
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="cpu, cuda, or auto: a CUDA GPU if there is one, otherwise the CPU."),
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Number of CPU threads. [default: number of cores]")
    ] = None,
) -> None:
    """Train a model on a FEFF data set and write its folder.

    The same command goes on with a training that was ended.
    """
    from ..jobs.train import train_model

    with exit_on_error():
        typer.echo(train_model(config, data, out, device, threads))
