"""A model whose network is loaded for its first estimate."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from xas_agent.app.config import load_config
from xas_agent.app.wiring import load_models
from xas_agent.models import card as cards
from xas_agent.models.lazy import LazyModel
from xas_agent.models.runtime import Model

SHARED = ("name", "sha256", "absorber", "edge_name", "edge", "units", "single_site", "reach")


def test_it_is_the_model_of_its_folder():
    lazy, model = LazyModel(cards.find("co-k")), Model(cards.find("co-k"))
    assert [getattr(lazy, name) for name in SHARED] == [getattr(model, name) for name in SHARED]
    assert (lazy.grid.energy == model.grid.energy).all()
    spectra = np.random.default_rng(0).normal(size=(3, len(model.grid))).astype(np.float32)
    assert list(lazy.estimate(spectra)) == list(model.estimate(spectra))


def test_cards_of_all_models_load_no_torch():
    code = (
        "import sys; from xas_agent.app.config import Config; from xas_agent.app.wiring import load_models; "
        "print(len(load_models(Config(), at_once=False)), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(cards.installed())), "False"]


def test_a_damaged_file_is_refused_before_it_is_needed(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(cards.find("co-k"), folder)
    with (folder / "model.ts").open("ab") as file:
        file.write(b"x")
    with pytest.raises(cards.ModelError, match="does not match its card"):
        load_models(load_config({"model": {"use": [str(folder)]}}), at_once=False)
