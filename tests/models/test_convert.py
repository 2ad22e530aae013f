import shutil

import pytest
import torch

from xas_agent.models.card import installed, verify
from xas_agent.models.convert import convert, largest_difference, plausible_spectra, served_of
from xas_agent.models.engines.torchscript import load_module
from xas_agent.models.network import save

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["cr-k", "o-k"])
def test_a_converted_folder_has_the_same_weights_and_answers(name, tmp_path):
    folder = tmp_path / name
    shutil.copytree(installed()[name], folder)
    before = load_module(folder, CPU).state_dict()
    assert convert(folder) <= 1e-5
    verify(folder)
    after = load_module(folder, CPU).state_dict()
    assert before.keys() == after.keys()
    for tensor, same in zip(before.values(), after.values(), strict=True):
        assert torch.equal(tensor.nan_to_num(), same.nan_to_num())


def test_spectra_of_a_model_of_short_scans_end_early_in_every_second_row():
    served = served_of(installed()["cr-k"])
    spectra = plausible_spectra(served, 40)
    assert served.short < spectra.shape[1]
    assert not spectra[:, : served.short].isnan().any()
    assert spectra[::2].isnan().any()
    assert not spectra[1::2].isnan().any()
    assert served(spectra).isfinite().all()


def test_a_file_that_answers_differently_is_seen(tmp_path):
    folder = installed()["o-k"]
    served = served_of(folder)
    served.spt.query.bias.data += 0.5
    save(served, tmp_path / "model.ts")
    assert largest_difference(folder, tmp_path, plausible_spectra(served, 8)) > 1e-4
