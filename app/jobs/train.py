"""``xas-agent train``: makes a model folder from a training config."""

from pathlib import Path


def train_model(config_path: Path, data: Path, out: Path, device: str = "auto", threads: int | None = None) -> Path:
    """Train a model with progress bars; an interrupted training continues.

    Parameters
    ----------
    config_path : Path
        YAML file, or the name of a shipped training config.
    data : Path
        Folder with the FEFF rows.
    out : Path
        Folder that receives the model folder.
    device : str
        ``cpu``, ``cuda``, or ``auto`` for CUDA if available.
    threads : int or None
        CPU threads; None uses all cores.

    Returns
    -------
    Path
        The model folder.

    Raises
    ------
    ConfigError, DataError, InputError
        The config or the data are invalid, or CUDA is not available; raised before the training starts.
    """
    from ...models.cores import core_count
    from ...models.runtime import configure_torch
    from ...models.training import build
    from ..config import read_training
    from ..output.progress import progress_bars

    config = read_training(str(config_path))
    configure_torch(threads or core_count())
    with progress_bars() as progress:
        return build(config, data, out, device, progress)
