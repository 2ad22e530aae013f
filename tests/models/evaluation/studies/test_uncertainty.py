"""Coverage, ranking of errors, and the words made of them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xas_agent.models.evaluation.competitors.conditions import CLEAN, Condition
from xas_agent.models.evaluation.studies.uncertainty import (
    IntervalPredictions,
    coordination_table,
    cumulative_error,
    findings,
    measure_coverage,
    risk_curves,
    risk_table,
    summaries,
    uncertainty,
)
from xas_agent.models.runtime import Model
from xas_agent.models.training.windows import cut_rows, half_edge_ev, window_points

NAN = np.full(4, np.nan)
MATERIAL = np.array(["a", "a", "b", "c"])


def test_coverage_counts_what_is_known():
    predicted = IntervalPredictions(np.zeros(4), np.full(4, -1.0), np.full(4, 1.0), NAN, NAN)
    found = measure_coverage(predicted, np.array([0.0, 1.0, 2.0, np.nan]), MATERIAL)
    assert found["coverage"] == pytest.approx(2 / 3)
    assert found["rows"] == 3
    assert found["width"] == 2
    assert found["MAE"] == 1
    assert found["low"] <= found["coverage"] <= found["high"]


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=30))
def test_the_last_of_the_ranked_is_the_mean_and_none_is_under_a_perfect_order(pairs):
    doubt, error = np.array(pairs).T
    mean = cumulative_error(doubt, error)
    assert mean[-1] == pytest.approx(error.mean(), abs=1e-9)
    assert (mean >= cumulative_error(error, error) - 1e-9).all()


def test_doubt_that_orders_errors_has_rank_one_and_none_has_none():
    error = np.arange(20.0)
    table = risk_table({"good": (error, error), "flat": (np.zeros(20), error)}).set_index("descriptor")
    assert table.loc["good", "Spearman"] == pytest.approx(1)
    assert table.loc["good", "surest 10%"] == 0.5
    assert table.loc["good", "surest 100%"] == 9.5
    assert np.isnan(table.loc["flat", "Spearman"])
    assert len(risk_curves({"good": (error, error)}).axes) == 1


def rows(**coverage: float) -> pd.DataFrame:
    base = {"descriptor": "NNRS", "width": 0.1, "MAE": 0.02, "rows": 50}
    return pd.DataFrame(
        [
            {**base, "condition": c.replace("_", " "), "coverage": v, "low": v - 0.02, "high": v + 0.02}
            for c, v in coverage.items()
        ]
    )


@pytest.mark.parametrize(
    ("clean", "said", "unsaid"),
    [
        (0.9, "for all descriptors", "wider than"),
        (0.95, "all but NNRS", "all descriptors"),
        (0.8, "all but NNRS", "wider than"),
    ],
)
def test_the_text_says_which_intervals_hold(clean, said, unsaid):
    table = rows(clean=clean, noise_0_01=0.85, Ni_at_this_edge=0.4)
    table["condition"] = table["condition"].replace({"noise 0 01": "noise 0.01"})
    ece = pd.DataFrame({"descriptor": ["CN"], "ECE": [0.03]})
    risk = pd.DataFrame({"surest 25%": [0.1], "surest 100%": [0.4]})
    text = " ".join(findings(table, (CLEAN, Condition("noise", 0.01)), ece, risk, 0.9, "50 validation rows").split())
    assert said in text
    assert unsaid not in text
    assert "0.85 (NNRS, noise 0.01)" in text
    assert "0.40 (NNRS, Ni at this edge)" in text
    assert "0.25 times" in text


def test_coverage_is_judged_for_each_end_of_a_spectrum(windowed):
    section = uncertainty(Model(windowed.model, "cpu"), windowed.plan, (), (CLEAN,))
    edge = half_edge_ev(windowed.plan.clean[windowed.plan.learnt], windowed.plan.rows.grid.energy)
    conditions = ["clean", "end 27", "end 32", f"end {edge + 25:g}", f"end {edge + 40:g}", "end 72"]
    for table in ("uncertainty-coverage", "uncertainty-widths"):
        assert section.tables[table].index.tolist() == conditions
    shares = section.tables["uncertainty-coverage"]["OS"].to_dict()
    assert shares["end 72"] == shares["clean"]
    widths = section.tables["uncertainty-widths"]["OS"].to_dict()
    assert widths["end 27"] != widths["clean"]


def test_coverage_is_judged_by_coordination_number(windowed):
    model, plan = Model(windowed.model, "cpu"), windowed.plan
    table = uncertainty(model, plan, (), (CLEAN,)).tables["uncertainty-coordination"]
    number, os_mean = (plan.data.labels[d][plan.judged] for d in ("CN", "OS_mean"))
    for spectra in ("clean", "end 27"):
        found = table[(table["descriptor"] == "OS") & (table["spectra"] == spectra)].set_index("sites")
        counts = {f"Co, CN {n:g}": int((~np.isnan(os_mean[number == n])).sum()) for n in np.unique(number)}
        counts = {"Co": int((~np.isnan(os_mean)).sum())} | {k: n for k, n in counts.items() if n >= 10}
        assert len(counts) > 2
        assert found["rows"].to_dict() == counts
    rows, spectra = cut_rows(plan, plan.judged[(number == 5) & ~np.isnan(os_mean)], window_points(plan)[0])
    served = [e.descriptors["OS"] for e in model.estimate(spectra.numpy())]
    ends = np.array([(d.lo, d.hi) for d in served])
    truth = plan.data.labels["OS_mean"][rows]
    assert found.loc["Co, CN 5", "coverage"] == ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
    assert found.loc["Co, CN 5", "half-width"] == pytest.approx(np.median(np.diff(ends)) / 2)


def test_few_sites_of_a_coordination_number_are_left_out(windowed):
    plan = windowed.plan
    data = plan.data.rows(np.isin(np.arange(len(plan.data)), plan.judged[:9]))
    sets = {"clean": (plan.clean[plan.judged[:9]].numpy(), data)}
    assert coordination_table(Model(windowed.model, "cpu"), "Co", sets).empty


def test_summaries_have_conditions_as_rows_in_their_order():
    shares, widths = summaries(rows(clean=0.9, broken=0.5))
    assert shares["NNRS"].tolist() == ["0.900 [0.880, 0.920]", "0.500 [0.480, 0.520]"]
    assert shares.index.tolist() == ["clean", "broken"]
    assert widths["NNRS"].tolist() == ["0.1 (0.02)"] * 2
