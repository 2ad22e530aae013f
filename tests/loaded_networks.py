"""Networks of the shipped models, loaded once for all tests of a process or for all commands forked from it."""

from functools import cache, wraps
from pathlib import Path

import torch

from xas_agent.models import card as cards
from xas_agent.models.engines import torchscript
from xas_agent.models.runtime import Model


def share_networks(*at_once: str) -> None:
    """Let the file of each shipped model be loaded once, which takes 0.2 s.

    Parameters
    ----------
    at_once : models to load now, and to run until they have their full speed, which takes another 0.2 s
    """
    if hasattr(torchscript._load, "__wrapped__"):
        return
    load, loaded = torchscript._load, cache(torchscript._load)
    shipped = cards.find("co-k").parent

    @wraps(load)
    def load_or_share(folder: Path, device: torch.device) -> object:
        return (loaded if folder.parent == shipped else load)(folder, device)

    torchscript._load = load_or_share
    for name in at_once:
        Model(cards.find(name), "cpu").warm_up()
