"""Test the choice of a model by element, by energies and by the edge in a long scan."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xas_agent.agent.estimate.model_choice import choose_model
from xas_agent.agent.types import Reach
from xas_agent.agent.types.edge import Edge
from xas_agent.agent.types.estimate import Estimate
from xas_agent.agent.types.grid import Grid
from xas_agent.agent.types.reasons import Reason

GRID = Grid(-9, 98, 1, (-9, -6), (40, 98))
EDGES = {("Co", "K"): 7709.0, ("Ni", "K"): 8333.0, ("Cu", "K"): 8979.0}


@dataclass
class FakeModel:
    """The part of a model that the choice needs."""

    absorber: str
    edge_name: str
    edge: Edge
    grid: Grid = GRID
    sha256: str = "0" * 64
    units: dict[str, str] = field(default_factory=dict)
    single_site: frozenset[str] = frozenset()
    hardly_known: frozenset[str] = frozenset()
    reach: dict[str, Reach] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.absorber}-{self.edge_name}".lower()

    def estimate(self, spectra: NDArray[np.float32], extra_sd: object = None) -> Sequence[Estimate]:
        raise AssertionError("the choice of a model must not call estimate")


CO, NI, CU = MODELS = [FakeModel(element, edge, Edge(at)) for (element, edge), at in EDGES.items()]


def scan(first: float, last: float, *steps: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return energies and absorption with edges at the given energies and heights."""
    energy = np.arange(first, last, 1.0)
    rise = sum((height * (0.5 + np.arctan(energy - at) / np.pi) for at, height in steps), np.zeros_like(energy))
    return energy, 0.4 * (energy / 8000) ** -2.7 + rise


def refusal(*arguments: Any) -> tuple[str, str]:
    reason_and_detail = choose_model(*arguments)
    assert isinstance(reason_and_detail, tuple)
    return reason_and_detail


def test_named_element_decides():
    energy, mu = scan(8250, 8450, (8333, 1))
    assert choose_model(MODELS, energy, mu, "Co", "K") is CO
    assert choose_model(MODELS, energy, mu, "Cu", None) is CU


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
@pytest.mark.parametrize(("before", "after"), [(60, 110), (-15, 110), (200, 30)])
def test_energies_decide_without_a_named_element(model, before, after):
    at = model.edge.edge_ev
    assert choose_model(MODELS, *scan(at - before, at + after, (at, 1)), None, None) is model


@pytest.mark.parametrize("model", [CO, NI])
def test_visible_edge_decides_in_a_long_scan(model):
    energy, mu = scan(7600, 9500, (model.edge.edge_ev, 0.8))
    assert choose_model(MODELS, energy, mu, None, None) is model


def test_two_visible_edges_are_ambiguous():
    reason, detail = refusal(MODELS, *scan(7600, 8600, (7709, 1), (8333, 0.9)), None, None)
    assert reason == Reason.SEVERAL_MODELS
    assert detail == "co-k, ni-k all fit 7600.0…8599.0 eV"


@pytest.mark.parametrize(
    ("models", "window", "element", "edge", "message"),
    [
        (MODELS, (7000, 7200), None, None, "no model for 7000.0…7199.0 eV; loaded are Co K, Ni K, Cu K"),
        (MODELS, (7650, 7720), None, None, "no model for 7650.0…7719.0 eV"),  # ends within the edge
        (MODELS, (8250, 8450), "Fe", None, "no model for Fe"),
        (MODELS, (8250, 8450), "Ni", "L3", "no model for Ni L3"),
        ([], (8250, 8450), None, None, "loaded are none"),
    ],
)
def test_refusal_names_the_request_and_the_loaded_models(models, window, element, edge, message):
    reason, detail = refusal(models, *scan(*window), element, edge)
    assert reason == Reason.NO_MODEL
    assert message in detail


def test_two_models_of_one_edge_are_ambiguous():
    other = FakeModel("Ni", "K", Edge(8333.0, 1.7))
    reason, _ = refusal([NI, other], *scan(8250, 8450, (8333, 1)), "Ni", "K")
    assert reason == Reason.SEVERAL_MODELS


@given(st.sampled_from(MODELS), st.floats(70, 1500), st.floats(70, 1500), st.floats(0.05, 3))
@settings(max_examples=100, deadline=None)
def test_scan_with_one_edge_gets_the_model_of_that_edge(model, before, after, height):
    at = model.edge.edge_ev
    assert choose_model(MODELS, *scan(at - before, at + after, (at, height)), None, None) is model
