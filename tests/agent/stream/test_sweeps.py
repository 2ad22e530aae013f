"""Splitting of sweeps, removal of padding and μ, against known sweeps."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xas_agent.agent.stream.sweeps import UnusableError, form_spectrum, split_sweeps, strip_padding

AXIS = 8333.0 + np.concatenate([np.arange(-60, -20, 5.0), np.arange(-20, 40, 0.5), np.arange(40, 111, 3.0)])


@st.composite
def several_sweeps(draw: st.DrawFn) -> list[np.ndarray]:
    axis = draw(st.sampled_from([AXIS, np.linspace(7000, 7100, 25), np.linspace(0.0, 1.0, 60), AXIS[::7]]))
    jitter = draw(st.sampled_from([0.0, 0.05, 0.15])) * np.diff(axis).min()
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rising = draw(st.lists(st.booleans(), min_size=1, max_size=5))
    return [(axis if up else axis[::-1]) + rng.uniform(-jitter, jitter, axis.size) for up in rising]


@settings(max_examples=200, deadline=None)
@given(several_sweeps())
def test_sweeps_of_any_direction_are_recovered(sweeps: list[np.ndarray]) -> None:
    found = split_sweeps(np.concatenate(sweeps))
    ends = np.cumsum([s.size for s in sweeps])
    assert [(part.start, part.stop) for part in found] == list(zip(ends - sweeps[0].size, ends, strict=True))


def test_extreme_measured_once_belongs_to_one_sweep() -> None:
    parts = split_sweeps(np.concatenate([AXIS, AXIS[-2::-1], AXIS[1:]]))
    n = AXIS.size
    assert [part.stop - part.start for part in parts] == [n, n - 1, n - 1]


def test_jitter_larger_than_the_steps_does_not_split_a_sweep() -> None:
    rng = np.random.default_rng(1)
    dense = np.linspace(8200, 8800, 20_000)
    up, down = dense + rng.normal(0, 0.05, dense.size), dense[::-1] + rng.normal(0, 0.05, dense.size)
    assert len(split_sweeps(up)) == 1
    parts = split_sweeps(np.concatenate([up, down]))
    assert len(parts) == 2
    assert abs(parts[0].stop - dense.size) < 30


ENERGIES = st.one_of(st.integers(0, 30).map(float), st.floats(allow_nan=False, allow_infinity=False))


@settings(max_examples=400, deadline=None)
@given(st.lists(ENERGIES, min_size=1, max_size=40))
@example([9.0, 6.0, 7.0, 1.0])
@example([1e308, -1e308, 5e-324, 1e308, 0.0])
def test_every_point_is_in_one_sweep(energies: list[float]) -> None:
    parts = split_sweeps(np.array(energies))
    assert [k for part in parts for k in range(part.start, part.stop)] == list(range(len(energies)))
    assert all(part.stop > part.start for part in parts)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_extreme_numbers_give_finite_spectra_or_none(data: st.DataObject) -> None:
    huge = st.sampled_from([5e-324, 1e-310, 1.0, 8333.0, 1e300, 1.7e308, -1.7e308, np.inf, np.nan])
    formula = data.draw(st.sampled_from(["transmission", "fluorescence", "mu"]))
    columns = {role: np.full(12, 2.0) for role in ("i0", "it", "fluorescence", "mu", "iref")}
    columns["energy"] = AXIS[:12].copy()
    for role, value, at in data.draw(st.lists(st.tuples(st.sampled_from(sorted(columns)), huge, st.integers(0, 11)))):
        columns[role][at] = value
    try:
        found = form_spectrum(columns, formula, 3)
    except UnusableError:
        return
    assert np.isfinite(found.energy).all()
    assert (np.diff(found.energy) > 0).all()
    assert np.isfinite(found.mu).all()
    assert found.reference is None or np.isfinite(found.reference).all()


@pytest.mark.parametrize("size", [0, 1, 2])
def test_few_points_are_at_most_one_sweep(size: int) -> None:
    assert len(split_sweeps(np.arange(float(size)))) == min(size, 1)


def test_mu_is_formed_and_sorted() -> None:
    mu, foil = np.linspace(0.1, 2.0, AXIS.size), np.linspace(0, 1, AXIS.size)
    i0 = np.full(AXIS.size, 1e6)
    it = i0 * np.exp(-mu)
    columns = {"energy": AXIS, "i0": i0, "it": it, "iref": it * np.exp(-foil)}
    found = form_spectrum({role: c[::-1] for role, c in columns.items()}, "transmission", 10)
    assert found.direction == "falling"
    assert found.reference is not None
    np.testing.assert_allclose(found.energy, AXIS)
    np.testing.assert_allclose(found.mu, mu)
    np.testing.assert_allclose(found.reference, foil, atol=1e-12)
    columns = {"energy": AXIS, "i0": i0, "fluorescence": i0 * mu, "reference": foil * np.nan}
    found = form_spectrum(columns, "fluorescence", 10)
    np.testing.assert_allclose(found.mu, mu)
    assert found.reference is None


def test_energy_measured_twice_gives_the_mean() -> None:
    found = form_spectrum({"energy": np.repeat(AXIS, 2), "mu": np.arange(2.0 * AXIS.size)}, "mu", 10)
    np.testing.assert_array_equal(found.energy, AXIS)
    np.testing.assert_allclose(found.mu, 2 * np.arange(AXIS.size) + 0.5)


@pytest.mark.parametrize(
    ("role", "value", "reason"),
    [
        ("energy", np.nan, "NaN in data"),
        ("i0", np.nan, "NaN in data"),
        ("it", np.inf, "NaN in data"),
        ("i0", 0.0, "I0 not positive"),
        ("it", -1.0, "It not positive"),
        ("energy", -5.0, "energy not positive"),
        ("energy", 1e300, "energy too high"),
    ],
)
def test_one_bad_value_makes_the_spectrum_unusable(role: str, value: float, reason: str) -> None:
    columns = {"energy": AXIS.copy(), "i0": np.ones(AXIS.size), "it": np.ones(AXIS.size)}
    columns[role][3] = value
    with pytest.raises(UnusableError) as refused:
        form_spectrum(columns, "transmission", 10)
    assert refused.value.reason == reason


def test_padding_and_repeated_rows_are_removed() -> None:
    i0, it = np.full(AXIS.size, 5.0), np.linspace(1, 2, AXIS.size)
    pad = np.zeros(7)
    for energies in (np.append(AXIS, pad), np.append(AXIS, np.full(7, AXIS[-1] + 1))):
        found = strip_padding({"energy": energies, "i0": np.append(i0, pad), "it": np.append(it, pad)})
        assert {c.size for c in found.values()} == {AXIS.size}
    found = strip_padding({"energy": np.append(AXIS, AXIS[-1]), "mu": np.append(it, it[-1])})
    np.testing.assert_array_equal(found["energy"], AXIS)
    found = strip_padding({"energy": AXIS[::-1], "mu": np.append(it[2:][::-1], [0.0, 0.0])})
    assert found["mu"].size == AXIS.size, "zero is a value before the edge"


def test_a_single_step_back_is_no_turn():
    first, second = np.arange(0.0, 50.0, 0.5), np.arange(48.0, 100.0)
    overlapping = np.concatenate([first, second])
    assert split_sweeps(overlapping) == [slice(0, overlapping.size)]
    assert split_sweeps(overlapping[::-1]) == [slice(0, overlapping.size)]
    assert split_sweeps(np.concatenate([[4.0], first])) == [slice(0, first.size + 1)]
    assert len(split_sweeps(np.concatenate([first, first[-3::-1]]))) == 2
    assert len(split_sweeps(np.concatenate([first, first]))) == 2


def test_negative_currents_give_the_spectrum_of_positive_ones():
    energy = np.linspace(8300.0, 8400.0, 40)
    mu = 0.3 + 1 / (1 + np.exp(8340.0 - energy))
    i0 = np.linspace(2.0, 1.9, 40)
    columns = {"energy": energy, "i0": i0, "it": i0 * np.exp(-mu), "iref": i0 * np.exp(-2 * mu)}
    negative = {role: column if role == "energy" else -column for role, column in columns.items()}
    found = form_spectrum(negative, "transmission", 10)
    np.testing.assert_allclose(found.mu, mu, rtol=1e-12)
    assert found.reference is not None
    np.testing.assert_allclose(found.reference, mu, rtol=1e-12)
    below_offset = {"energy": energy, "i0": i0, "fluorescence": mu * i0 - 9.0}
    np.testing.assert_allclose(form_spectrum(below_offset, "fluorescence", 10).mu, mu - 9.0 / i0, rtol=1e-12)
    negative["i0"][5] = 0.1
    with pytest.raises(UnusableError, match="I0 not positive"):
        form_spectrum(negative, "transmission", 10)
