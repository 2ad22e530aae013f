"""``xas-agent train``: a model from FEFF rows."""

from pathlib import Path
from typing import Annotated

import typer

from .options import DataOption
from .shared import told


def train(
    config: Annotated[Path, typer.Argument(help="Training config, e.g. configs/training/cu-k.yaml.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Where the model folder is written.")] = Path("trained"),
    jobs: Annotated[int | None, typer.Option(min=1, help="Members trained at a time. [default: cores]")] = None,
) -> None:
    """Train a model from FEFF rows and write its folder."""
    from ..jobs.train import train_model

    with told():
        typer.echo(train_model(config, data, out, jobs))
