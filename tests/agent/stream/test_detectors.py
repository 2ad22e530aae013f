import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xas_agent.agent.stream.detectors import find_flaw
from xas_agent.agent.stream.sweeps import UnusableError, form_spectrum

ENERGY = 8300 + np.linspace(0, 150, 300)


def columns(seed=0):
    rng = np.random.default_rng(seed)
    i0 = 1e6 * (1 - 1e-3 * (ENERGY - 8300)) * (1 + 1e-3 * rng.normal(size=300))
    mu = 0.4 + 0.8 * (0.5 + np.arctan((ENERGY - 8340) / 1.5) / np.pi)
    it = i0 * np.exp(-mu) * (1 + 1e-3 * rng.normal(size=300))
    fluorescence = i0 * mu * 1e-3 * (1 + 1e-3 * rng.normal(size=300))
    return {"energy": ENERGY, "i0": i0, "it": it, "fluorescence": fluorescence, "iref": it * np.exp(-mu)}


def reason(made, formula="transmission"):
    with pytest.raises(UnusableError) as told:
        form_spectrum(made, formula, 10)
    assert any(c.isdigit() for c in told.value.detail)
    return told.value.reason


@given(st.integers(0, 1000))
def test_good_detectors_have_no_flaw(seed):
    made = columns(seed)
    assert all(find_flaw(made, role) is None for role in ("i0", "it", "fluorescence", "iref"))
    assert form_spectrum(made, "transmission", 10).reference is not None


def test_i0_may_be_constant_and_dip():
    made = columns()
    made["i0"] = np.ones(300)
    made["it"] = made["it"] / made["it"].max()
    assert form_spectrum(made, "transmission", 10).mu.size == 300
    made = columns()
    made["i0"][100:130] *= 0.6
    made["it"][100:130] *= 0.6
    assert form_spectrum(made, "transmission", 10).mu.size == 300


@pytest.mark.parametrize(("role", "formula"), [("it", "transmission"), ("fluorescence", "fluorescence")])
def test_constant_detector(role, formula):
    made = columns()
    made[role] = np.full(300, 7.0)
    assert reason(made, formula) == f"{'It' if role == 'it' else 'If'} constant"


@given(st.floats(0.1, 0.95))
def test_saturated_detector(part):
    made = columns()
    made["fluorescence"] = np.minimum(made["fluorescence"], np.quantile(made["fluorescence"], part))
    assert reason(made, "fluorescence") == "If saturated"


def test_few_counts_are_not_saturation():
    rng = np.random.default_rng(1)
    assert find_flaw({"fluorescence": rng.integers(0, 4, 300).astype(float)}, "fluorescence") is None


def test_beam_dump():
    made = columns()
    made["i0"][250:] = 1e3
    assert reason(made) == "I0 dropped"
    made["i0"][250:] = 0
    assert reason(made) == "I0 not positive"


def test_constant_reference_removes_only_the_reference():
    made = columns()
    made["iref"] = np.full(300, 1.0)
    assert form_spectrum(made, "transmission", 10).reference is None


@given(st.integers(0, 1000), st.floats(0.02, 0.3))
@example(0, 0.0941)  # three dark points, of which two are neighbours
def test_i0_is_dark_below_a_tenth_of_its_median_for_three_points_in_a_row(seed, part):
    made = columns(seed)
    made["i0"][40:44] *= part
    made["i0"][50] *= 3
    dark = made["i0"] < 0.1 * np.median(made["i0"])
    assert (find_flaw(made, "i0") is not None) == (dark[:-2] & dark[1:-1] & dark[2:]).any()
