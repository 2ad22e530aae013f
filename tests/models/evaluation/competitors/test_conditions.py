"""Test the disturbances under which models are compared, on rows of several ends."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from windowed import Windowed

from xas_agent.models.evaluation.competitors.conditions import CLEAN, Condition, disturbed
from xas_agent.models.training.plan import TrainingPlan


@pytest.fixture
def plan(windowed: Windowed) -> TrainingPlan:
    """The rows of a model of windows, the first two of which end at 39 eV."""
    assert windowed.plan.rows.reach is not None
    reach = windowed.plan.rows.reach.clone()
    reach[:2] = 49
    rows = replace(windowed.plan.rows, reach=reach)
    return replace(windowed.plan, rows=rows, clean=rows.clean())


@pytest.mark.parametrize("condition", [CLEAN, Condition("noise", 0.01), Condition("sampling", 2.0)])
def test_a_row_ends_where_it_ends_whatever_disturbs_it(plan, condition):
    known = np.isfinite(disturbed(plan, np.arange(4), condition))
    assert known.sum(1).tolist() == [49, 49, 82, 82]
    assert known[:, :49].all()


def test_clean_spectra_are_those_of_the_plan(plan):
    index = np.arange(6)
    np.testing.assert_allclose(disturbed(plan, index, CLEAN), plan.clean[index].numpy(), atol=1e-6)


def test_an_end_cuts_the_rows_that_reach_it(plan):
    spectra = disturbed(plan, np.arange(4), Condition("end", 50.0))
    assert np.isfinite(spectra).sum(1).tolist() == [49, 49, 60, 60]
    as_scans = plan.rows.cut(plan.clean[2:4], torch.tensor([60, 60])).numpy()
    np.testing.assert_allclose(spectra[2:], as_scans, atol=1e-6)
