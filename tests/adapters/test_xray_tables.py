import builtins

import numpy as np
import pytest

from xas_agent.adapters import xray_tables
from xas_agent.adapters.xray_tables import TableError


def test_without_xraydb_it_says_what_to_install(monkeypatch):
    imported = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "xraydb":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TableError, match=r"xas-agent\[xray\]"):
        xray_tables.edge_ev("Ni")


def test_edges_lines_and_coefficients():
    pytest.importorskip("xraydb", reason="the extra xray is not installed")
    assert xray_tables.edge_ev("Ni") == pytest.approx(8333, abs=1)
    assert xray_tables.emission_ev("Ni") == pytest.approx(7479, abs=3)
    f2 = xray_tables.f2("Ni", np.array([8200.0, 8300.0, 8400.0]))
    assert f2[2] > 5 * f2[1]
    found = xray_tables.coefficients("LiNiO2", "Ni")
    assert found.above > 5 * found.below
    for wrong in (lambda: xray_tables.edge_ev("Xx"), lambda: xray_tables.emission_ev("Ni", "Zz9")):
        with pytest.raises(TableError):
            wrong()
    with pytest.raises(TableError, match="formula"):
        xray_tables.coefficients("Li(Ni", "Ni")
