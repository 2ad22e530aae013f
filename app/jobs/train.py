"""Train a model from a config and write its folder."""

from pathlib import Path


def train_model(config_path: Path, data: Path, out: Path, jobs: int | None) -> Path:
    """Train from a YAML config with a progress bar; gives the model folder.

    Raises
    ------
    ConfigError, DataError
        With one message, before training starts.
    """
    from ...models.cores import core_count
    from ...models.training import build
    from ..config import read_training
    from ..output.progress import progress_bars

    config = read_training(str(config_path))
    with progress_bars() as progress:
        return build(config, data, out, jobs or min(config.members, core_count()), progress)
