"""The transform between FEFF and measurement is found again where it is known."""

from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import torch
import yaml
from scipy.ndimage import gaussian_filter1d

from xas_agent.agent.spectra.settings import AlignmentSettings
from xas_agent.agent.types.grid import Grid
from xas_agent.app.config import ConfigError, read_training
from xas_agent.models import card as cards
from xas_agent.models.training import standards as domain
from xas_agent.models.training.augment import Augmentation, damped, disturb, stretched

EDGE_EV = 7709.0
CALIBRATED = AlignmentSettings(energy_sd_ev=0.0)
GRID = cards.read_card(cards.find("co-k")).grid.grid()


def rows() -> tuple[np.ndarray, np.ndarray]:
    with files("xas_agent.sim_beamline").joinpath("cathode_co_k.npz").open("rb") as f, np.load(f) as z:
        return z["energy"], z["mu"].astype(float)


def standard(offset: float, scale: float, amplitude: float, sigma: float, *, metal: bool = False) -> domain.Standard:
    """A spectrum measured as the card's formula says, with lines below and above its edge and some noise."""
    feff_energy, mu = rows()[0], rows()[1][-1]
    relative = np.arange(-150.0, 250.0, 0.5)
    broad = gaussian_filter1d(mu, sigma / (feff_energy[1] - feff_energy[0]))
    at = EDGE_EV + relative / scale + offset
    half = feff_energy[np.argmax(broad >= 0.5)]
    step = 0.5 + np.arctan((at - half) / 5.0) / np.pi
    norm = amplitude * np.interp(at, feff_energy, broad, right=1.0) + (1 - amplitude) * step
    measured = 0.3 - 4e-4 * relative + 0.8 * norm + 2e-4 * np.random.default_rng(0).standard_normal(len(relative))
    some = slice(300, 845)
    return domain.Standard("made", EDGE_EV + relative, measured, None, feff_energy[some], mu[some], metal)


@pytest.mark.parametrize(
    "known", [(2.5, 1.04, 0.9, 2.3), (5.4, 1.0, 0.85, 1.0), (0.0, 0.97, 1.0, 3.0)], ids=["ni", "cu", "other"]
)
def test_a_known_transform_is_found(known):
    found = domain.fit(standard(*known), GRID, EDGE_EV, CALIBRATED)
    values = np.array([found.offset_ev, found.scale, found.amplitude, found.broadening_ev])
    # The post-edge curve of a scan this short takes part of the oscillations with it.
    assert (np.abs(values - known) < np.maximum([0.3, 0.012, 0.06, 0.4], np.multiply(2, found.sd))).all()
    assert found.misfit < 0.02


@pytest.mark.parametrize(
    ("left", "sign", "why"),
    [((-150, 60), 1, "does not cover the grid"), ((0, 250), 1, "does not cover"), ((-150, 250), -1, "negative edge")],
)
def test_a_standard_that_cannot_be_aligned_calibrates_nothing(left, sign, why):
    made = standard(2.5, 1.04, 0.9, 2.0)
    some = (made.energy >= EDGE_EV + left[0]) & (made.energy < EDGE_EV + left[1])
    short = replace(made, energy=made.energy[some], mu=sign * made.mu[some])
    with pytest.raises(domain.StandardError, match=f"made: {why}"):
        domain.fit(short, GRID, EDGE_EV, AlignmentSettings())


WINDOWS = Grid(-9, 98, 1, (-9, -6), (18, 32), short_stop_ev=27)


@pytest.mark.parametrize(("stop", "last"), [(250, 98), (60, 60), (25, 27)])
def test_a_short_standard_calibrates_a_model_of_short_spectra(stop, last):
    made = standard(4.0, 1.0, 0.9, 2.0)
    some = made.energy <= EDGE_EV + stop
    short = replace(made, energy=made.energy[some], mu=made.mu[some])
    found = domain.fit(short, WINDOWS, EDGE_EV, CALIBRATED, scale=1.0)
    assert found.energy[-1] == pytest.approx(last, abs=1)
    assert found.measured.shape == found.theory.shape == found.energy.shape
    assert found.offset_ev == pytest.approx(4.0, abs=0.5)
    assert found.misfit < 0.02


def test_a_feff_row_that_ends_early_is_compared_as_far_as_it_is_known():
    """As published rows do, it ends inside the window of level 1; the measured spectrum goes on."""
    made = standard(3.0, 1.0, 0.9, 2.0)
    some = made.feff_energy <= EDGE_EV + 34
    early = replace(made, feff_energy=made.feff_energy[some], feff_mu=made.feff_mu[some])
    found = domain.fit(early, WINDOWS, EDGE_EV, CALIBRATED, scale=1.0)
    assert found.energy[-1] == 31
    assert found.offset_ev == pytest.approx(3.0, abs=0.3)
    assert found.amplitude == pytest.approx(0.9, abs=0.02)  # 0.85 if what lies beyond the row counted
    assert found.broadening_ev == pytest.approx(2.0, abs=0.1)
    some = made.feff_energy <= EDGE_EV + 26
    with pytest.raises(domain.StandardError, match=r"ends at 77\d\d\.\d eV, needed 7736\.0 eV"):
        domain.fit(
            replace(made, feff_energy=made.feff_energy[some], feff_mu=made.feff_mu[some]),
            WINDOWS,
            EDGE_EV,
            CALIBRATED,
        )


def test_a_short_standard_is_covered_at_every_scale():
    made = standard(2.0, 1.06, 0.9, 2.0)
    some = made.energy <= EDGE_EV + 88
    short = replace(made, energy=made.energy[some], mu=made.mu[some])
    found = domain.fit(short, WINDOWS, EDGE_EV, CALIBRATED)
    assert found.scale == pytest.approx(1.06, abs=0.03)
    assert not np.isnan(found.measured).any()


def test_a_known_scale_is_not_fitted():
    made = standard(2.5, 1.06, 0.9, 2.0)
    (found,), _, fitted = domain.calibrate([made], GRID, EDGE_EV, CALIBRATED, known_scale=1.03)
    assert found.scale == pytest.approx(1.03, abs=2e-4)
    assert (fitted.scale, fitted.scale_sd) == (1.03, domain._SCALE_SCATTER)


def test_the_mean_of_the_sites_of_a_compound():
    energy = EDGE_EV + np.arange(-2.0, 40.0, 0.5)
    one, other = (0.5 + np.arctan((energy - EDGE_EV - e0) / 2) / np.pi for e0 in (8, 12))
    common, mean = domain.mean_of_sites([(1.0, energy, one), (2.0, energy[8:-4], other[8:-4])])
    assert common[0] == energy[0]
    assert common[-1] == energy[-5]
    assert np.allclose(mean[8:], (one[8:-4] + 2 * other[8:-4]) / 3)
    assert (np.diff(mean[:12]) > 0).all()  # the row that begins later goes on as a tail


def test_a_standard_without_a_foil_is_as_uncertain_as_its_energies():
    made = standard(2.5, 1.04, 0.9, 2.0)
    known, plain = (domain.fit(made, GRID, EDGE_EV, s) for s in (CALIBRATED, AlignmentSettings(energy_sd_ev=1.0)))
    assert plain.sd[0] == pytest.approx(np.hypot(known.sd[0], 1.0))
    assert plain.sd[1:] == known.sd[1:]


def test_a_broadening_of_zero_is_uncertain():
    """The standard is sharper than its counterpart; at a broadening of 0 the derivative is 0."""
    made = standard(2.5, 1.0, 1.0, 0.01)
    step = made.feff_energy[1] - made.feff_energy[0]
    sharp = replace(made, feff_mu=gaussian_filter1d(made.feff_mu, 1.5 / step))
    found = domain.fit(sharp, GRID, EDGE_EV, CALIBRATED)
    assert found.broadening_ev == pytest.approx(0.0, abs=0.1)
    assert 0.5 < found.sd[3] <= domain._UPPER_BOUNDS[3]
    assert (
        domain._parameter_sd(np.zeros((5, 4)), 1.0) == np.subtract(domain._UPPER_BOUNDS, domain._LOWER_BOUNDS)
    ).all()


def test_a_wrong_bond_length_of_feff_is_not_the_scale():
    made = standard(2.5, 1.06, 0.9, 2.0)
    wrong = domain.Standard(**{**vars(made), "stretch": 1.01})
    plain, corrected = (domain.fit(s, GRID, EDGE_EV, AlignmentSettings()).scale for s in (made, wrong))
    assert corrected == pytest.approx(plain / 1.01**2, abs=1e-6)


@pytest.mark.slow
def test_metals_contribute_to_the_scale_only():
    oxide, metal = standard(2.5, 1.04, 0.9, 2.0), standard(8.5, 1.04, 0.6, 1.0, metal=True)
    _, offset, found = domain.calibrate([oxide, metal], GRID, EDGE_EV, AlignmentSettings())
    assert offset is not None
    assert offset.value_ev == pytest.approx(2.5, abs=0.4)
    assert offset.sd_ev >= domain._OFFSET_SCATTER_EV
    assert found.scale == pytest.approx(1.04, abs=0.02)
    assert found.amplitude == pytest.approx(0.9, abs=0.1)
    _, none, alone = domain.calibrate([metal], GRID, EDGE_EV, AlignmentSettings())
    assert none is None
    assert (alone.amplitude, alone.broadening_ev) == (1.0, 0.0)
    _, less, _ = domain.calibrate([metal], GRID, EDGE_EV, AlignmentSettings(), metal_gap_ev=6.0)
    assert less is not None
    assert less.value_ev == pytest.approx(2.5, abs=0.5)
    assert less.sd_ev > 1.4 * domain._OFFSET_SCATTER_EV
    with pytest.raises(ValueError, match="no standards"):
        domain.calibrate([], GRID, EDGE_EV, AlignmentSettings())
    for wrong in (float("nan"), 0.0, 1.4):
        with pytest.raises(domain.StandardError, match=r"scale: found .*, expected 0.85 to 1.15"):
            domain.calibrate([metal], GRID, EDGE_EV, AlignmentSettings(), known_scale=wrong)
    for wrong in (float("nan"), -5.0, 50.0):
        with pytest.raises(domain.StandardError, match=r"metal gap: found .*, expected 0 to 16"):
            domain.calibrate([metal], GRID, EDGE_EV, AlignmentSettings(), metal_gap_ev=wrong)


def test_training_rehearses_what_the_card_says(tmp_path):
    raw = read_training("ni-k").model_dump(mode="json")
    raw |= {"domain": {"amplitude_sd": 0.1}, "augmentation": {**raw["augmentation"], "amplitude": 0.0}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True))
    with pytest.raises(ConfigError, match=r"amplitude 0, needed 0\.1"):
        read_training(str(tmp_path / "mine.yaml"))


def test_amplitude_and_scale_of_the_augmentation():
    energy, mu = rows()
    spectra = torch.from_numpy(mu)
    step = float(energy[1] - energy[0])
    one = torch.ones(len(mu), 1, dtype=spectra.dtype)
    assert torch.allclose(damped(spectra, step, one), spectra)
    half = damped(spectra, step, 0.5 * one)
    assert (half.max(1).values < spectra.max(1).values).all()  # a white line is lower,
    assert torch.allclose(half[:, -1], one[:, 0], atol=0.03)  # and the background where it was
    start = float(energy[0]) - EDGE_EV
    assert torch.allclose(stretched(spectra, start, step, one), spectra)
    wide = stretched(spectra, start, step, 1.05 * one)
    line = energy[mu.argmax(1)] - EDGE_EV
    assert np.allclose(energy[wide.numpy().argmax(1)] - EDGE_EV, 1.05 * line, atol=step)
    settings = Augmentation(disturbed=1.0, amplitude=0.2, scale=0.05)
    made = disturb(spectra, start, step, settings, torch.Generator().manual_seed(0))
    assert made.shape == spectra.shape
    assert (made - spectra).abs().max() > 0.05
