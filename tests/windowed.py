"""A small model that answers spectra of several ends."""

from pathlib import Path
from typing import Any, NamedTuple

from xas_agent.models.training.build import build
from xas_agent.models.training.config import TrainingConfig
from xas_agent.models.training.plan import TrainingPlan

SHORT_EV, STOP_EV = 27.0, 72.0
CONFIG: dict[str, Any] = {
    "name": "co-windows",
    "dataset": "many",
    "absorber": "Co",
    "edge_ev": 7709.0,
    "grid": {
        "start_ev": -9.0,
        "stop_ev": STOP_EV,
        "step_ev": 1.0,
        "foot_ev": [-9.0, -6.0],
        "anchor_ev": [18.0, 32.0],
        "short_stop_ev": SHORT_EV,
    },
    "network": {"width": 8, "blocks": 1, "heads": 2, "latent": 16, "gathered": 4, "bands": 2},
    "optimisation": {"epochs": 6, "batch": 16, "learning_rate": 0.01, "rows_per_epoch": 128},
    "augmentation": {"mixed": 0.4, "cut": 0.5},
    "units": {"OS": "e"},
    "members": 3,
    "feff_minus_experiment": {"value_ev": 4.0, "sd_ev": 1.5, "source": "a standard"},
    "licence": "BSD-3-Clause",
    "sources": ["made for the test"],
    "cite": ["nobody"],
}


class Windowed(NamedTuple):
    """The folder of the model, the folder of its rows, and its plan."""

    model: Path
    data: Path
    plan: TrainingPlan


def train_windowed(data: Path, out: Path) -> Windowed:
    config = TrainingConfig.model_validate(CONFIG)
    model = build(config, data, out, "cpu", lambda *_: None)
    return Windowed(model, data, TrainingPlan.read(config, data))
