import numpy as np
import pytest

from xas_agent.adapters import xray_tables
from xas_agent.agent.spectra.self_absorption import damping
from xas_agent.agent.spectra.settings import AlignmentSettings
from xas_agent.agent.types.tables import Tabulated
from xas_agent.agent.types.xray import TableError


def test_f2_and_coefficients():
    f2 = xray_tables.f2("Ni", np.array([8200.0, 8300.0, 8400.0]))
    assert f2[2] > 5 * f2[1]
    found = xray_tables.coefficients("LiNiO2", "Ni")
    assert found.above > 5 * found.below
    with pytest.raises(TableError, match="formula"):
        xray_tables.coefficients("Li(Ni", "Ni")


def test_what_the_settings_ask_for():
    asked = AlignmentSettings(normalisation={"mode": "mback"}, self_absorption={"formula": "LiNiO2"})
    found = xray_tables.tabulated(asked, "Ni", "K")
    assert found.f2 is not None
    below, above = found.f2.at(np.array([8200.0, 8500.0]))
    assert above > 5 * below
    assert damping(found.alpha) == pytest.approx(0.29, abs=0.02)
    grazing = AlignmentSettings(self_absorption={"formula": "LiNiO2", "angle_in_deg": 80, "angle_out_deg": 10})
    assert damping(xray_tables.tabulated(grazing, "Ni", "K").alpha) > 0.4
    assert xray_tables.tabulated(asked, "Co", "K").alpha is None
    assert xray_tables.tabulated(AlignmentSettings(), "Ni", "K") == Tabulated()


@pytest.mark.parametrize("formula", ["", "Li(Ni", "nickel oxide"])
def test_a_compound_that_is_invalid_is_told_with_its_setting(formula):
    with pytest.raises(TableError, match=r"^alignment\.self_absorption\.formula: .*found no compound"):
        xray_tables.tabulated(AlignmentSettings(self_absorption={"formula": formula}), "Ni", "K")
