"""Tabulated edges and lines, and hc."""

import subprocess
import sys

import pytest
from xraydb.utils import PLANCK_HC

from xas_agent.agent.types.xray import HC_EV_ANGSTROM, TableError, edge_ev, emission_ev
from xas_agent.models import card as cards


def test_hc_equals_the_value_of_the_tables():
    assert pytest.approx(PLANCK_HC, rel=1e-12) == HC_EV_ANGSTROM
    assert pytest.approx(12398.419843, abs=1e-6) == HC_EV_ANGSTROM


def test_edges_and_lines():
    assert edge_ev("Ni") == pytest.approx(8333, abs=1)
    assert edge_ev("Ni", "L3") == pytest.approx(852.7, abs=1)
    assert emission_ev("Ni") == pytest.approx(7479, abs=3)


@pytest.mark.parametrize("name", cards.installed())
def test_edge_of_a_shipped_model_is_the_tabulated_edge(name):
    card = cards.read_card(cards.find(name))
    assert card.edge_ev == pytest.approx(edge_ev(card.absorber, card.edge), rel=1e-6)


def test_missing_table_entry_is_one_message():
    with pytest.raises(TableError, match="Xx K: found no such edge"):
        edge_ev("Xx")
    with pytest.raises(TableError, match="H L3: found no such edge"):
        edge_ev("H", "L3")
    with pytest.raises(TableError, match="Ni Zz9: found no such line; expected one of Ka"):
        emission_ev("Ni", "Zz9")
    with pytest.raises(TableError, match="expected one of an element"):
        emission_ev("Xx")


def test_tables_are_loaded_on_first_use():
    code = "import sys, xas_agent.agent.pipeline, xas_agent.adapters.xray_tables; print('xraydb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
