"""Test the selection of rows of a batch."""

import numpy as np
import pytest

from xas_agent.agent.spectra.batch import Batch

MU = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize("energy", [np.arange(4.0), np.arange(4.0)[None], np.arange(12.0).reshape(3, 4)])
@pytest.mark.parametrize("rows", [[2, 0], slice(1, 3), np.array([True, False, True])])
def test_rows_keep_their_energies_e0_and_references(energy, rows):
    batch = Batch(energy, MU, np.arange(3.0), reference=-MU, fluorescence=True)
    part = batch.rows(rows)
    assert part.fluorescence
    np.testing.assert_array_equal(part.energy, energy[rows] if len(energy) == 3 else np.atleast_2d(energy))
    assert part.e0 is not None
    assert part.reference is not None
    np.testing.assert_array_equal(part.mu, MU[rows])
    np.testing.assert_array_equal(part.e0, np.arange(3.0)[rows])
    np.testing.assert_array_equal(part.reference, -MU[rows])
    np.testing.assert_array_equal(part.e0_column, part.e0[:, None])
    assert len(Batch(energy, MU).rows(rows)) == len(part)
