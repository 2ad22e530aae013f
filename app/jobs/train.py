"""``xas-agent train``: a model folder from a training config."""

from pathlib import Path


def train_model(config_path: Path, data: Path, out: Path, jobs: int | None) -> Path:
    """Train a model with progress bars.

    Parameters
    ----------
    config_path : Path
        YAML file, or the name of a shipped training config.
    data : Path
        Folder with the FEFF rows.
    out : Path
        Folder in which the model folder is written.
    jobs : int or None
        Members trained at the same time; None uses all cores.

    Returns
    -------
    Path
        The model folder.

    Raises
    ------
    ConfigError, DataError
        The config or the data are invalid; before the training starts.
    """
    from ...models.cores import core_count
    from ...models.training import build
    from ..config import read_training
    from ..output.progress import progress_bars

    config = read_training(str(config_path))
    with progress_bars() as progress:
        return build(config, data, out, jobs or min(config.members, core_count()), progress)
