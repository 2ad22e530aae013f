"""Every figure is drawn, also of little, of one, of unknown and of oddly named things."""

from io import BytesIO

import numpy as np
import pandas as pd
import pytest

from xas_agent.models.evaluation.report import comparison_figures, model_figures, study_figures
from xas_agent.models.evaluation.report.style import BLUE, rank, style_of
from xas_agent.models.evaluation.report.tables import FigureOfMerit, Roc, calibration

NAN = float("nan")
ODD = "a $\\frac{ <b> & é"


def rendered(figure):
    """SVG text of a figure; a layout that does not fit is a warning, and so an error here."""
    out = BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    figure.savefig(BytesIO(), format="png", dpi=40)
    return out.getvalue().decode()


def measured(names, descriptors):
    rng = np.random.default_rng(0)
    values = {n: {d: rng.uniform(-0.5, 1) for d in descriptors} for n in names}
    return {n: {d: FigureOfMerit(v, v - 0.1, v + 0.1) for d, v in each.items()} for n, each in values.items()}


@pytest.mark.parametrize("descriptors", [("OS",), ("OS", "CN"), ("OS", "CN", "OCN", "CN2", "NNRS")])
def test_scores_and_differences(descriptors):
    found = measured(("SPT", "xgboost", ODD), descriptors)
    found[ODD][descriptors[0]] = FigureOfMerit(NAN, NAN, NAN)
    del found["xgboost"][descriptors[0]]
    assert rendered(comparison_figures.score_bars(found, {"OS", "CN"}))
    assert rendered(comparison_figures.differences(found))


def test_no_rows_no_panels():
    assert rendered(comparison_figures.score_bars({}, ()))
    assert rendered(model_figures.confusion_matrices({}))
    assert rendered(model_figures.roc_curves({"OS": Roc({}, {}, NAN)}))
    assert rendered(model_figures.parity({"NNRS": (np.full(3, NAN), np.ones(3))}))
    assert rendered(model_figures.parity({"NNRS": (np.array([1.9]), np.array([1.8]))}, {"NNRS": "Å"}))


@pytest.mark.parametrize("size", [2, 9, 40])
def test_confusion_of_few_and_many_classes(size):
    labels = np.arange(size)
    table = pd.DataFrame(np.eye(size, dtype=int) * 7, index=labels, columns=labels)
    assert rendered(model_figures.confusion_matrices({"OS": table, ODD: table}))
    curve = (np.array([0.0, 0.2, 1.0]), np.array([0.0, 0.9, 1.0]))
    assert rendered(
        model_figures.roc_curves({ODD: Roc(dict.fromkeys(range(size), curve), dict.fromkeys(range(size), 0.9), 0.9)})
    )


@pytest.mark.parametrize("extra", [(), ("standard_error",), ("low", "high")])
def test_curves(extra):
    rows = [
        {"competitor": c, "descriptor": d, "sigma": s, "score": 0.9 - 9 * s, **dict.fromkeys(extra, 0.8)}
        for c in ("SPT", "PLS", ODD)
        for d in ("OS", "NNRS")
        for s in (0.0, 0.02, 0.2)
    ]
    table = pd.DataFrame([*rows, {**rows[0], "competitor": "cnn", "score": NAN}])
    assert rendered(comparison_figures.curves(table, "competitor", "sigma", "σ", {"OS"}))


@pytest.mark.parametrize("n", [50, 3000])
def test_parity_and_embedding_of_few_and_many(n):
    rng = np.random.default_rng(0)
    true = rng.normal(size=n)
    true[::7] = NAN
    assert rendered(model_figures.parity({"NNRS": (true, rng.normal(size=n)), ODD: (true, true)}))
    kind = rng.choice(["oxide", "a" * 60, ODD, ""], n)
    colourings = {"OS": rng.integers(0, 4, n).astype(float), "NNRS": true, "kind": kind, "all": np.full(n, NAN)}
    assert rendered(study_figures.embedding(rng.normal(size=(n, 2)), colourings))


def test_reliability_and_coverage():
    rng = np.random.default_rng(0)
    confidence = rng.random(200)
    tables = {d: calibration(confidence, rng.random(200) < confidence) for d in ("OS", ODD)}
    tables["empty"] = calibration(np.empty(0), np.empty(0, dtype=bool))
    assert rendered(model_figures.reliability(tables))
    row = {"descriptor": "NNRS", "condition": ODD, "coverage": 0.9, "low": 0.8, "high": 0.95, "width": 0.1}
    assert rendered(
        model_figures.coverage(pd.DataFrame([row, {**row, "condition": "Ni", "low": NAN}]), units={"NNRS": "Å"})
    )


@pytest.mark.parametrize("extra", [{}, {"end": False}, {"end": True, "low": 3.1, "high": 3.9}])
def test_delithiation(extra):
    rows = [
        {"panel": p, "stacking": s, "expected": 3.5, "predicted": 3.4, **extra}
        for p in ("Co: SPT", "Ni: SPT")
        for s in ("O3", "O1", ODD)
    ]
    assert rendered(study_figures.delithiation(pd.DataFrame(rows)))


def test_detector():
    rng = np.random.default_rng(0)
    assert rendered(study_figures.detector(rng.random(50), {"noise": rng.random(50) + 5, ODD: np.zeros(3)}))


def test_a_competitor_looks_the_same_however_it_is_spelt():
    assert style_of("SPT")[0] == style_of("Joint SPT")[0] == BLUE
    assert style_of("extra-trees") == style_of("Extra Trees") == style_of("extra_trees")
    assert style_of("something new") == style_of("something new")
    assert sorted(["other", "pls", "xgboost", "cnn", "SPT"], key=rank) == ["SPT", "cnn", "xgboost", "pls", "other"]
