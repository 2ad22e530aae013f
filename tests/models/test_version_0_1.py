"""Model folders, training configs and evaluation configs of version 0.1.0: they load, or one message says why not."""

from pathlib import Path

import pytest
import torch
import yaml

from xas_agent.app.config import read_training
from xas_agent.models import card as cards
from xas_agent.models.convert import served_of
from xas_agent.models.runtime import Model
from xas_agent.models.training.plan import config_of, served_weights

GRID = {"start_ev": -9.0, "stop_ev": 20.0, "step_ev": 1.0, "foot_ev": [-9.0, -6.0], "anchor_ev": [10.0, 20.0]}
CLASSES = {"OS": [1, 2, 3], "CN": [4, 6]}
COMMON = {
    "name": "cu-k",
    "absorber": "Cu",
    "edge": "K",
    "edge_ev": 8979.0,
    "grid": GRID,
    "feff_minus_experiment": {"value_ev": 5.3, "sd_ev": 1.0, "source": "tenorite CuO"},
    "licence": "weights BSD-3-Clause",
    "cite": ["Kharel et al., OmniXAS, Phys. Rev. Materials 9, 043803 (2025)"],
}
NETWORK = {
    "width": 48,
    "blocks": 1,
    "window": 3,
    "heads": 4,
    "latent": 128,
    "gathered": 24,
    "dropout": 0.05,
    "bands": 4,
}
AUGMENTATION = {"disturbed": 0.25, "shift_ev": 0.5, "broadening_ev": 2.0, "noise": 0.02, "slope": 0.03, "mixed": 0.1}
OPTIMISATION = {"epochs": 50, "batch": 48, "learning_rate": 0.003, "weight_decay": 0.05, "patience": 50}


class Network(torch.nn.Module):
    """Columns as of a network of version 0.1.0, whose file has no training sites to recall."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(30))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = torch.tensor([0.2, 0.7, 0.1, 0.5, 0.5, 0.03, 2.1, 0.01, 0.2, 0.4])
        return columns.expand(len(x), -1)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model folder with the card of version 0.1.0."""
    torch.jit.script(Network()).save(str(tmp_path / "model.ts"))

    def descriptor(name: str, mean_head: str | None = None) -> dict[str, object]:
        return {
            "name": name,
            "kind": "classified" if name in CLASSES else "regressed",
            "unit": "e" if name == "OS" else "",
            "classes": CLASSES.get(name, []),
            "mean_head": mean_head,
            "mixture": True,
            "interval": {"scale": 1.2, "floor": 0.1, "coverage": 0.9},
        }

    training = {
        "dataset": "cu_k",
        "sources": ["FEFF 9.9.1 spectra: OmniXAS"],
        "rows": 4400,
        "materials": 2231,
        "protocol": "split",
        "pretrained": None,
        "members": 4,
        "epochs": [41, 46, 40, 37],
        "parameters": 837248,
        "periods": [78, 52, 39, 31],
        "temperature": [1.8, 1.3],
        "network": NETWORK,
        "augmentation": AUGMENTATION | {"mixture_max": 6},
        "optimisation": OPTIMISATION | {"rows_per_epoch": 512, "regression_weight": 3.0},
        "seed": 0,
    }
    card = COMMON | {
        "descriptors": [descriptor("OS", "OS_mean"), descriptor("CN"), descriptor("NNRS")],
        "regressed": ["NNRS", "OS_mean"],
        "ood": "distance to the training spectra; 1 is the threshold",
        "training": training,
        "metrics": {"on": "560 validation rows", "OS": {"metric": "weighted F1", "value": 0.84}},
        "sha256": cards.sha256_of(tmp_path / "model.ts"),
    }
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card, allow_unicode=True), encoding="utf-8")
    return tmp_path


def test_a_model_folder_is_served(folder):
    model = Model(folder, "cpu")
    (estimate,) = model.estimate(torch.zeros(1, 30).numpy())
    assert estimate.descriptors["OS"].value == 2
    assert estimate.ood_score == pytest.approx(0.4)
    assert model.edge.scale == 1.0


def test_the_training_config_of_a_model_folder_is_read(folder):
    config = config_of(cards.read_card(folder))
    assert (config.network.width, config.network.node_points, config.runs) == (48, 1, 1)


@pytest.mark.parametrize("read", [served_weights, served_of])
def test_a_model_folder_to_fine_tune_from_is_one_message(folder, read):
    with pytest.raises(
        cards.ModelError, match=r"a model of version 0\.1\.0, .* can be served, .*train the model again"
    ):
        read(folder)


def test_a_training_config_is_read(tmp_path):
    config = COMMON | {
        "dataset": "cu_k",
        "units": {"OS": "e", "NNRS": "Å", "MOOD": "Å"},
        "network": NETWORK,
        "augmentation": AUGMENTATION,
        "optimisation": OPTIMISATION,
        "members": 4,
        "seed": 0,
        "sources": ["FEFF 9.9.1 spectra: OmniXAS", "structures: Materials Project"],
    }
    path = tmp_path / "cu-k.yaml"
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    assert read_training(str(path)).members == 4


@pytest.mark.parametrize("name", cards.installed())
def test_a_shipped_file_is_read_by_the_present_names(name):
    """Its tensors have the former names of the denoiser and of the out-of-distribution score."""
    served = served_of(cards.installed()[name])
    model = Model(cards.installed()[name], "cpu")
    spectra = torch.rand(3, len(model.grid), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(served(spectra).double(), torch.from_numpy(model.forward(spectra.numpy())))
