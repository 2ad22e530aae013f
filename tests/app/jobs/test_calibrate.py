"""What ``xas-agent calibrate`` takes for a standard."""

import numpy as np
import pytest
import yaml

from xas_agent.agent.spectra import AlignmentSettings
from xas_agent.agent.types.errors import InputError
from xas_agent.app.config import ConfigError, read_training
from xas_agent.app.jobs.calibrate import calibrate_model, folder_to_write
from xas_agent.models.training import StandardError


def _spectrum(energy: np.ndarray, edge_ev: float) -> np.ndarray:
    return 0.5 + np.arctan((energy - edge_ev) / 2) / np.pi + 0.5 * np.exp(-(((energy - edge_ev - 5) / 3) ** 2))


@pytest.mark.parametrize(
    ("standard", "why"),
    [
        ("b.dat", "expected FILE=ROW"),
        ("b.dat=nothing", "no row 'nothing'"),
        ("b.dat=x1,bond=long", "found bond 'long', expected 1 to 4, such as bond=2.07"),
        ("b.dat=x1,bond=2.0", "column mean_bond"),
        ("b.dat=x1,foil", "expected metal, bond=Å, shift=eV or reference=COLUMN"),
        ("b.dat=x1,shift=much", "expected -15 to 15, such as shift=1.25"),
        ("licoo2.npz=x1", "found 2 spectra"),
        ("b.dat=x1,reference=", "or reference=COLUMN"),
        ("b.dat=x0+nothing", "no row 'nothing'"),
        ("b.dat=x0+none*x1", "the multiplicity 'none'"),
        ("b.dat=x0+-1*x1", "the multiplicity '-1'"),
    ],
)
def test_a_standard_that_cannot_be_used(tmp_path, standard, why):
    counterpart, energy = tmp_path / "licoo2.npz", np.arange(7700.0, 7800.0, 0.5)
    mu = np.tile(0.5 + np.arctan(energy - 7715) / np.pi, (2, 1))
    np.savez(counterpart, id=["x0", "x1"], energy=np.broadcast_to(energy, mu.shape), mu=mu)
    with pytest.raises(InputError, match=why):
        calibrate_model("co-k", [f"{tmp_path / standard}"], [counterpart], AlignmentSettings(), None)


def test_a_row_that_is_not_there_is_answered_with_those_of_like_names(tmp_path):
    energy, names = np.arange(7700.0, 7800.0, 0.5), [*(f"Li0.{k}CoO2_Co000" for k in range(9)), "Co_metal_Co000"]
    mu = np.tile(_spectrum(energy, 7715.0), (len(names), 1))
    np.savez(tmp_path / "co.npz", id=names, energy=np.broadcast_to(energy, mu.shape), mu=mu)
    with pytest.raises(InputError, match="found 10 rows, such as Co_metal_Co000"):
        calibrate_model("co-k", [f"{tmp_path}/b.dat=Co_Co000"], [tmp_path / "co.npz"], AlignmentSettings(), None)


def test_a_training_config_is_calibrated_with_a_compound_of_two_sites(tmp_path):
    """The compound is half x0 and half x1, 4 eV apart, and its monochromator is 2 eV too low."""
    energy = np.arange(7700.0, 7820.0, 0.5)
    mu = np.stack([_spectrum(energy, 7715.0), _spectrum(energy, 7719.0)])
    np.savez(tmp_path / "one.npz", id=["x0"], energy=energy[None], mu=mu[:1])
    np.savez(tmp_path / "two.npz", id=["x0", "x1"], energy=energy, mu=np.stack([0 * mu[0], mu[1]]))
    measured = np.arange(7560.0, 7960.0, 0.5)
    half = (_spectrum(measured, 7712.0) + _spectrum(measured, 7716.0)) / 2
    np.savetxt(tmp_path / "a.dat", np.c_[measured - 2.0, 0.1 + half], header="energy mu")
    shipped = read_training("co-k").model_dump(mode="json")
    raw = shipped | {"name": "mine", "domain": shipped["domain"] | {"metal_gap_ev": 7.5, "misfit_sd": {"OS": 0.2}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True))
    standard, feff = f"{tmp_path / 'a.dat'}=2*x0+2*x1,shift=2", [tmp_path / "one.npz", tmp_path / "two.npz"]
    done = calibrate_model(str(tmp_path / "mine.yaml"), [standard], feff, AlignmentSettings(), None, 1.0)
    assert done.card.name == "mine"
    assert done.card.feff_minus_experiment.value_ev == pytest.approx(3.0, abs=0.3)
    assert done.card.feff_minus_experiment.source.startswith("a.dat against 2*x0+2*x1, misfit 0.0")
    assert any("broadening" in gap for gap in done.uncovered) == (done.card.domain.broadening_ev > 3.0)
    assert done.card.domain.metal_gap_ev == 7.5  # what no fit determines is kept
    assert done.card.domain.misfit_sd == {"OS": 0.2}
    with pytest.raises(StandardError, match="shift has no effect"):
        calibrate_model(str(tmp_path / "mine.yaml"), [f"{standard},metal"], feff, AlignmentSettings())
    with pytest.raises(ConfigError, match="is not written"):
        folder_to_write(str(tmp_path / "mine.yaml"))
