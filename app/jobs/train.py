"""Train a model from a config and write its folder."""

import os
from pathlib import Path


def train_model(config_path: Path, data: Path, out: Path, jobs: int | None) -> Path:
    """Train from a YAML config with a progress bar; gives the model folder.

    Raises
    ------
    ConfigError, DataError
        With one message, before training starts.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ...models.training import build
    from ..config import read_training

    config = read_training(str(config_path))
    columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        epochs = config.runs * config.optimisation.epochs
        tasks = [bars.add_task(f"member {k}", total=epochs) for k in range(config.members)]

        def progress(member: int, epoch: int, score: float | None) -> None:
            text = f"member {member}" + (f", validation {score:.3f}" if score is not None else "")
            bars.update(tasks[member], completed=epoch, description=text)

        return build(config, data, out, jobs or min(config.members, os.cpu_count() or 1), progress)
