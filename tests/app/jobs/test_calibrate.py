"""What ``xas-agent calibrate`` takes for a standard."""

import numpy as np
import pytest

from xas_agent.agent.spectra import AlignmentSettings
from xas_agent.agent.types.errors import InputError
from xas_agent.app.jobs.calibrate import calibrate_model


@pytest.mark.parametrize(
    ("standard", "why"),
    [
        ("b.dat", "expected FILE=ROW"),
        ("b.dat=nothing", "no row 'nothing'"),
        ("b.dat=x1,bond=long", "a length in Å"),
        ("b.dat=x1,bond=2.0", "column mean_bond"),
        ("b.dat=x1,foil", "expected metal or bond"),
        ("licoo2.npz=x1", "found 2 spectra"),
    ],
)
def test_a_standard_that_cannot_be_used(tmp_path, standard, why):
    counterpart, energy = tmp_path / "licoo2.npz", np.arange(7700.0, 7800.0, 0.5)
    mu = np.tile(0.5 + np.arctan(energy - 7715) / np.pi, (2, 1))
    np.savez(counterpart, id=["x0", "x1"], energy=np.broadcast_to(energy, mu.shape), mu=mu)
    with pytest.raises(InputError, match=why):
        calibrate_model("co-k", [f"{tmp_path / standard}"], counterpart, AlignmentSettings(), None)
