"""Test the effect of energy errors on estimates."""

import json
from dataclasses import dataclass, field
from unittest.mock import Mock

import numpy as np
import pytest

from xas_agent.agent.estimate.energy_uncertainty import EnergyUncertainty, FrameErrors, slopes
from xas_agent.agent.types import Reach
from xas_agent.agent.types.edge import Edge
from xas_agent.agent.types.estimate import DescriptorEstimate, Estimate
from xas_agent.agent.types.grid import Grid

GRID = Grid(-9, 60, 1, (-9, -6), (30, 60))


@dataclass
class EdgeReader:
    """A model with an OS proportional to the edge energy, ``per_ev`` e per eV, and a constant CN."""

    offset_sd_ev: float = 0.0
    scale_sd: float = 0.0
    amplitude_sd: float = 0.0
    misfit_sd: dict[str, float] = field(default_factory=dict)
    per_ev: float = 0.2
    name: str = "ni-k"
    absorber: str = "Ni"
    edge_name: str = "K"
    sha256: str = ""
    grid: Grid = GRID
    units: dict[str, str] = field(default_factory=dict)
    single_site: frozenset[str] = frozenset()
    hardly_known: frozenset[str] = frozenset()
    reach: dict[str, Reach] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)

    @property
    def edge(self) -> Edge:
        return Edge(
            8333.0,
            3.0,
            self.offset_sd_ev,
            scale_sd=self.scale_sd,
            amplitude_sd=self.amplitude_sd,
            misfit_sd=self.misfit_sd,
        )

    def estimate(self, spectra, extra_sd=None):
        self.batches.append(len(spectra))
        at = (GRID.stop_ev - spectra.sum(1)) * self.per_ev
        return [
            Estimate({"OS": DescriptorEstimate(a, a - 1, a + 1), "CN": DescriptorEstimate(6, 5, 6)}, 0.1)
            for a in at.tolist()
        ]


def steps(*edges):
    return np.array([(GRID.energy > e).astype(np.float32) for e in edges])


def test_slopes_of_a_shift():
    for slope in slopes(EdgeReader(), steps(10.5, 14.5)):
        assert slope["OS"] == (pytest.approx(0.2), 0, 0, 0)
        assert slope["CN"] == (0, 0, 0, 0)


def test_slopes_of_a_stretch():
    model = EdgeReader(scale_sd=0.02)
    for slope, edge in zip(slopes(model, steps(13.0, 53.0)), (13.5, 53.5), strict=True):
        assert slope["OS"] == (pytest.approx(0.2), pytest.approx(0.2 * (edge - 3.0), rel=0.05), 0, 0)
    widths = EnergyUncertainty()(["a"], model, steps(53.0), np.array([3.0]))
    assert widths.energies["OS"][0] == pytest.approx(np.hypot(0.2 * 3.0, 0.2 * 50.5 * 0.02), rel=0.02)


def test_slopes_of_the_amplitude():
    model = EdgeReader(amplitude_sd=0.05)
    slope = slopes(model, steps(13.0))[0]["OS"][2]
    change = model.edge.scale_structure(steps(13.0).astype(float), GRID, 1.01) - steps(13.0)
    assert slope == pytest.approx(-change.sum() * 0.2 / 0.01, rel=1e-3)
    widths = EnergyUncertainty()(["a"], model, steps(13.0), np.zeros(1))
    assert widths.energies["OS"][0] == pytest.approx(abs(slope) * 0.05)


class KnownPartReader(EdgeReader):
    """A model of spectra that end before the grid; it keeps the known points of those that it got."""

    def estimate(self, spectra, extra_sd=None):
        self.known = np.isfinite(spectra)
        return super().estimate(np.where(self.known, spectra, 1.0))


def test_a_short_spectrum_ends_where_it_ends_whatever_its_energies():
    model = KnownPartReader(scale_sd=0.02, amplitude_sd=0.05)
    short = steps(10.5, 14.5)
    short[0, 40:], short[1, 50:] = np.nan, np.nan
    whole = slopes(EdgeReader(scale_sd=0.02), steps(10.5, 14.5))
    for slope, of_whole in zip(slopes(model, short), whole, strict=True):
        assert slope["OS"][:2] == pytest.approx(of_whole["OS"][:2])
    assert model.known.sum(1).tolist() == [40, 50] * 6


def test_measured_scale_and_feff_scale_add_in_quadrature():
    sds = EnergyUncertainty()(["a", "a"], EdgeReader(offset_sd_ev=4.0), steps(10.5, 11.5), np.array([3.0, 0.0]))
    np.testing.assert_allclose(sds.energies["OS"], [0.2 * 5.0, 0.2 * 4.0])
    np.testing.assert_allclose(sds.energies["CN"], 0)


def test_misfit_to_measured_standards_adds_in_quadrature_and_is_common_to_a_series():
    model = EdgeReader(offset_sd_ev=4.0, misfit_sd={"OS": 0.6})
    errors = FrameErrors(np.zeros(1), np.zeros(1), lambda i, noise, count: np.repeat(steps(10.5), count, axis=0))
    sds = EnergyUncertainty()(["a"], model, steps(10.5), np.zeros(1), errors)
    np.testing.assert_allclose(sds.energies["OS"], np.hypot(0.8, 0.6))
    np.testing.assert_allclose(sds.energies["CN"], 0)
    np.testing.assert_allclose(sds.frames["OS"], 0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 12])
def test_slopes_are_updated_periodically_for_any_batch_size(size):
    rng = np.random.default_rng(0)
    edges = 8 + np.sort(rng.uniform(0, 10, 12))
    series = ["a", "a", "b", *"abababaab"]

    def run(batch):
        model, widths = EdgeReader(offset_sd_ev=1.0), EnergyUncertainty(every=3)
        parts = [
            widths(series[k : k + batch], model, steps(*edges[k : k + batch]), np.ones(len(series[k : k + batch])))
            for k in range(0, 12, batch)
        ]
        return np.concatenate([p.energies["OS"] for p in parts]), sum(model.batches) // 2

    widths, updates = run(size)
    one_batch, _ = run(12)
    np.testing.assert_array_equal(widths, one_batch)
    assert updates == 5  # at frames 0, 3, 6 of the seven of a, and 0, 3 of the five of b


def test_series_beyond_the_maximum_are_forgotten():
    model, widths = EdgeReader(), EnergyUncertainty(every=10, max_series=2)
    for name in "abca":
        widths([name], model, steps(10.5), np.ones(1))
    assert sum(model.batches) // 2 == 4


def test_failed_update_is_repeated():
    """Otherwise the intervals of the next frames would omit the energy uncertainty."""
    model, widths = EdgeReader(), EnergyUncertainty()
    model.estimate = Mock(side_effect=RuntimeError)
    with pytest.raises(RuntimeError):
        widths(["a"], model, steps(10.5), np.ones(1))
    sds = widths(["a", "a"], EdgeReader(), steps(10.5, 11.5), np.ones(2))
    np.testing.assert_allclose(sds.energies["OS"], 0.2)


def test_under_overload_the_slopes_are_reused_and_then_renewed():
    model, widths = EdgeReader(offset_sd_ev=1.0), EnergyUncertainty(every=2)
    assert (
        widths(["a"], model, steps(10.5), np.ones(1), hurried=True).energies["OS"] > 0
    ).all()  # there are no slopes to reuse
    assert widths.reused == []
    model.batches.clear()
    sds = widths([*"aaab"], model, steps(10.5, 10.5, 10.5, 10.5), np.ones(4), hurried=True)
    assert not model.batches
    assert widths.reused == [1, 2, 3]  # due, and b takes those of a
    np.testing.assert_allclose(sds.energies["OS"], sds.energies["OS"][0])
    widths([*"ab"], model, steps(10.5, 10.5), np.ones(2))
    assert widths.reused == []
    assert sum(model.batches) // 2 == 2


def test_slopes_without_a_number_touch_one_frame_at_most():
    model, spectra = EdgeReader(offset_sd_ev=0.5), steps(10.5)
    uncertainty = EnergyUncertainty()
    answers = model.estimate
    good = uncertainty(["a"], model, spectra, np.zeros(1)).energies["OS"]

    def no_number(changed, extra_sd=None):
        nan = DescriptorEstimate(np.nan, np.nan, np.nan)
        return [Estimate({"OS": nan, "CN": nan}, 0.1) for _ in changed]

    model.estimate = no_number
    assert np.array_equal(uncertainty(["b"], model, spectra, np.zeros(1)).energies["OS"], good), (
        "those of another series"
    )
    assert uncertainty.reused == [0]
    uncertainty(["c", "c"], model, steps(10.5, 10.5), np.zeros(2))
    assert uncertainty.reused == [0, 1], "both have the slopes of another series"
    assert np.isnan(EnergyUncertainty()(["b"], model, spectra, np.zeros(1)).energies["OS"]), "nothing is known yet"
    alone = EnergyUncertainty()
    alone(["b"], model, spectra, np.zeros(1))
    model.estimate = answers
    assert np.array_equal(alone(["b"], model, spectra, np.zeros(1)).energies["OS"], good), (
        "asked again for the next frame"
    )
    assert alone.reused == []


def errors(spectra, noise=0.01, sd_ev=0.0, seed=0):
    rng = np.random.default_rng(seed)

    def noisy(i, level, copies):
        return (spectra[i] + level * rng.standard_normal((copies, len(GRID)))).astype(np.float32)

    return FrameErrors(np.full(len(spectra), noise), np.full(len(spectra), sd_ev), noisy)


def test_repeats_scatter_by_noise_and_by_the_energies_of_each_frame():
    model, spectra = EdgeReader(offset_sd_ev=4.0), steps(*[10.5] * 600)
    uncertainty = EnergyUncertainty(every=1, noise_every=1)
    sds = uncertainty(["a"] * 600, model, spectra, np.full(600, 3.0), errors(spectra)).frames
    np.testing.assert_array_equal(sds["CN"], 0)
    expected = 0.2 * 0.01 * np.sqrt(len(GRID))
    assert sds["OS"].mean() == pytest.approx(expected, rel=0.05)
    assert sds["OS"].std() == pytest.approx(expected / np.sqrt(2 * 15), rel=0.2)  # as 16 white copies know it
    sds = EnergyUncertainty()(["a"], model, spectra[:1], np.full(1, 3.0), errors(spectra[:1], 0.0, 0.5)).frames
    np.testing.assert_allclose(sds["OS"], 0.2 * 0.5)  # not the offset, which all frames share


def test_intervals_do_not_depend_on_what_repeats_scatter_by():
    model, spectra = EdgeReader(1.0, 0.02, 0.05), steps(10.5, 12.5, 14.5)
    without, given = (
        EnergyUncertainty(every=2)(["a"] * 3, model, spectra, np.ones(3), e) for e in (None, errors(spectra))
    )
    assert without.frames == {}
    for name, sd in without.energies.items():
        np.testing.assert_array_equal(given.energies[name], sd)


def test_a_restored_state_gives_the_same_numbers():
    model, spectra = EdgeReader(offset_sd_ev=1.0), steps(10.5, 11.5, 12.5)

    def go_on(uncertainty):
        return uncertainty(["a"] * 3, model, spectra, np.ones(3), errors(spectra, seed=1))

    first, second, old = (EnergyUncertainty(every=2, noise_every=5) for _ in range(3))
    first(["a"] * 3, model, spectra, np.ones(3), errors(spectra))
    memory = {key: json.loads(json.dumps(state)) for key, state in first.memory("a", model).items()}
    second.restore(memory)
    ((key, (left, slopes_of, _)),) = memory.items()
    old.restore({key: [left, {name: three for name, (*three, _) in slopes_of.items()}]})
    model.batches.clear()
    for expected, restored in zip(go_on(first) + go_on(first), go_on(second) + go_on(second), strict=True):
        for name, sd in expected.items():
            np.testing.assert_array_equal(restored[name], sd)
    assert model.batches == [2, 2 + 16, 2] * 2, "slopes at frames 4, 6 and 8, the response at 6"
    model.batches.clear()
    assert go_on(old).frames["OS"].all()
    assert model.batches == [2 + 16, 2], "a state of an earlier version is computed again"
