"""A model whose network is loaded for its first estimate."""

import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from xas_agent.app.config import load_config
from xas_agent.app.wiring import load_models
from xas_agent.models import card as cards
from xas_agent.models.lazy import LazyModel, Loading
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


def test_it_loads_once_for_all_threads(monkeypatch):
    loaded: list[str] = []
    begun, go = threading.Event(), threading.Event()

    class Slow:
        def __init__(self, folder, device, engine, threads):
            begun.set()
            go.wait(60)
            loaded.append(folder.name)

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
