"""Where the edge of a scan is, and which fields change there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xas_agent.agent.survey.steps import find_steps, suggest_edges


def scan(e0: float, span: float = 300.0, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    energy = np.linspace(e0 - 0.3 * span, e0 + 0.7 * span, points)
    return energy, 0.5 + np.arctan((energy - e0) / 2.0) / np.pi


@given(
    e0=st.floats(5000, 20000),
    step=st.floats(0.1, 2.0),
    slope=st.floats(-0.1, 0.1),
    noise=st.floats(1e-5, 0.002),
    sign=st.sampled_from([1.0, -1.0]),
    falling=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_it_falls_and_fluorescence_rises_at_the_edge(e0, step, slope, noise, sign, falling):
    energy, edge = scan(e0)
    rng = np.random.default_rng(0)
    i0 = sign * (1.0 + slope * (energy - e0) / 300.0) * (1.0 + noise * rng.standard_normal(energy.size))
    columns = {"i0": i0, "it": i0 * np.exp(-0.2 - step * edge), "if": i0 * (0.5 + step * edge)}
    order = slice(None, None, -1) if falling else slice(None)
    found = find_steps(energy[order], {key: column[order] for key, column in columns.items()})
    assert found.e0_ev == pytest.approx(e0, abs=6.0)
    assert found.steps["it"] == pytest.approx(-step, rel=0.35)
    assert found.steps["if"] > 0
    assert "i0" in found.flat


def test_a_scan_without_an_edge_has_no_step():
    energy, _ = scan(9000.0)
    noise = np.random.default_rng(0).standard_normal(energy.size)
    found = find_steps(energy, {"i0": 1e5 + 100 * noise, "constant": np.ones(energy.size)})
    assert found.e0_ev is None
    assert list(found.flat) == ["i0"]


@pytest.mark.parametrize("column", [np.full(200, np.nan), np.empty(0), np.zeros(200)])
def test_values_that_are_no_intensities_do_no_harm(column):
    energy = scan(9000.0)[0][: column.size]
    assert find_steps(energy, {"x": column}).e0_ev is None


@pytest.mark.parametrize(
    ("e0", "found"),
    [(8333.0, ("Ni", "K")), (8345.0, ("Ni", "K")), (7709.0, ("Co", "K")), (11919.0, ("Au", "L3"))],
)
def test_the_likeliest_edge_is_at_or_below_the_step(e0, found):
    first = suggest_edges(e0 - 100.0, e0 + 200.0, e0)[0]
    assert (first.element, first.edge) == found


def test_all_edges_of_the_range_are_named_where_no_step_is_seen():
    names = {(edge.element, edge.edge) for edge in suggest_edges(8250.0, 8450.0, None)}
    assert {("Ni", "K"), ("Er", "L3")} <= names
