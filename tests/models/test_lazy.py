"""A model whose network is loaded for its first estimate."""

import re
import shutil
import subprocess
import sys
import threading
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from xas_agent.app.config import load_config
from xas_agent.app.wiring import load_models
from xas_agent.models import card as cards
from xas_agent.models.lazy import LazyModel, Loading
from xas_agent.models.runtime import Model

pytestmark = pytest.mark.usefixtures("networks_of_files")
SHARED = ("name", "sha256", "absorber", "edge_name", "edge", "units", "single_site", "hardly_known", "reach")


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


def other_network(folder: Path, content: bytes) -> None:
    """Replace the network of a model folder, and note so in its card."""
    (folder / "model.ts").write_bytes(content)
    card = folder / "card.yaml"
    digest = sha256(content).hexdigest()
    card.write_text(re.sub(r"(?m)^sha256: .*$", f"sha256: {digest}", card.read_text()))


def test_a_network_that_torch_does_not_read_says_so_and_is_not_tried_again(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(cards.find("co-k"), folder)
    whole = (folder / "model.ts").read_bytes()
    other_network(folder, whole[: len(whole) // 2])
    lazy = LazyModel(folder)
    with pytest.raises(cards.ModelError, match=r"model\.ts: torch .* cannot load it .* expected a TorchScript"):
        lazy.load()
    other_network(folder, whole)
    with pytest.raises(cards.ModelError, match="cannot load it"):
        lazy.load()


def test_a_model_that_was_replaced_after_the_start_is_refused(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(cards.find("co-k"), folder)
    lazy = LazyModel(folder)
    shutil.copytree(cards.find("ni-k"), folder, dirs_exist_ok=True)
    with pytest.raises(cards.ModelError, match="found another model than at the start"):
        lazy.load()


def test_it_loads_once_for_all_threads(monkeypatch):
    loaded: list[str] = []
    begun, go = threading.Event(), threading.Event()

    class Slow:
        def __init__(self, folder, device, engine, threads):
            begun.set()
            go.wait(60)
            loaded.append(folder.name)
            self.sha256 = cards.read_card(folder).sha256

        def warm_up(self): ...

        def estimate(self, spectra, extra_sd):
            return [len(spectra)]

    monkeypatch.setattr("xas_agent.models.runtime.Model", Slow)
    models = [LazyModel(cards.find(name)) for name in ("co-k", "ni-k", "cu-k")]
    loading = Loading(models[:2])
    assert begun.wait(60)
    answers: list[object] = []
    needed = [threading.Thread(target=lambda m=m: answers.append(m.estimate(np.zeros((3, 2))))) for m in models]
    for thread in needed:
        thread.start()
    go.set()
    for thread in needed:
        thread.join(60)
    loading.close()
    assert answers == [[3]] * 3
    assert sorted(loaded) == ["co-k", "cu-k", "ni-k"]


def test_it_loads_no_more_than_the_model_in_progress_once_it_is_closed():
    loading = Loading(models := [LazyModel(cards.find(name)) for name in cards.installed()])
    loading.close()
    assert sum(model._model is not None for model in models) <= 1
