"""``xas-agent train``: trains a model and writes its folder."""

from pathlib import Path


def train_model(config_path: Path, data: Path, out: Path, jobs: int | None) -> Path:
    """Train from a YAML config with a progress bar and return the model folder.

    Raises
    ------
    ConfigError, DataError
        Config or data are invalid; raised before training starts.
    """
    from ...models.cores import core_count
    from ...models.training import build
    from ..config import read_training
    from ..output.progress import progress_bars

    config = read_training(str(config_path))
    epochs = config.runs * config.optimisation.epochs
    with progress_bars() as show:

        def progress(member: int, epoch: int, score: float | None) -> None:
            show(f"member {member}", epoch, epochs, "" if score is None else f"validation {score:.3f}")

        for member in range(config.members):
            progress(member, 0, None)
        return build(config, data, out, jobs or min(config.members, core_count()), progress)
