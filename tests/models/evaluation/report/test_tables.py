"""Scores against scikit-learn's, and intervals against loops that draw the materials one by one."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from xas_agent.models.evaluation.contract import Predictions
from xas_agent.models.evaluation.report.tables import (
    bootstrap,
    by_group,
    calibration,
    confusion,
    coverage_interval,
    descriptor_scores,
    draws_of,
    paired_bootstrap,
    roc,
    score,
)

CLASSES = {"OS": np.array([0, 1, 2, 3])}
DRAWS = 30


def one_hot(best):
    """Predictions whose most probable class is ``best``, sure to 70 %."""
    p = np.full((len(best), 4), 0.1)
    p[np.arange(len(best)), best.astype(int)] = 0.7
    return np.log(p)


@st.composite
def labelled(draw):
    """Truth with gaps, two guesses, and materials, of both kinds of descriptor."""
    n = draw(st.integers(4, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = rng.integers(0, 4, n).astype(float)
    lengths = rng.normal(1.9, 0.1, n)
    classes[rng.random(n) < 0.2] = lengths[rng.random(n) < 0.2] = np.nan
    classes[0], lengths[:2] = 1.0, (1.8, 2.0)
    guess = [
        {"OS": rng.integers(0, 4, n).astype(float), "NNRS": np.nan_to_num(lengths, nan=1.9) + rng.normal(0, 0.05, n)}
        for _ in range(2)
    ]
    return {"OS": classes, "NNRS": lengths}, *guess, np.array([f"mp-{i}" for i in rng.integers(0, 6, n)])


def as_predictions(guess):
    return Predictions({"OS": one_hot(guess["OS"])}, {"NNRS": guess["NNRS"]})


@settings(max_examples=30, deadline=None)
@given(labelled())
def test_scores_are_those_of_scikit_learn(case):
    truth, guess, _, material = case
    table = descriptor_scores(truth, as_predictions(guess), CLASSES, material)
    known = ~np.isnan(truth["OS"])
    t, p = truth["OS"][known].astype(int), guess["OS"][known].astype(int)
    for column, expected in {
        "weighted F1": f1_score(t, p, average="weighted", zero_division=0),
        "macro F1": f1_score(t, p, average="macro", zero_division=0),
        "accuracy": accuracy_score(t, p),
        "rows": known.sum(),
    }.items():
        assert table.loc["OS", column] == pytest.approx(expected)
    known = ~np.isnan(truth["NNRS"])
    t, p = truth["NNRS"][known], guess["NNRS"][known]
    for column, expected in {
        "R²": r2_score(t, p),
        "MAE": mean_absolute_error(t, p),
        "RMSE": root_mean_squared_error(t, p),
    }.items():
        assert table.loc["NNRS", column] == pytest.approx(expected)
    assert np.all(table["low"].to_numpy() <= table["high"].to_numpy())
    assert confusion("OS", truth, as_predictions(guess), CLASSES).to_numpy().tolist() == (
        confusion_matrix(
            *(v[~np.isnan(truth["OS"])].astype(int) for v in (truth["OS"], guess["OS"])), labels=range(4)
        ).tolist()
    )


def explicit(truth, value, descriptor):
    """The score of one resample; where all truths are equal, what scikit-learn says but for rounding."""
    t, p = truth[descriptor], value[descriptor]
    if descriptor == "NNRS" and len(t) > 1 and np.ptp(t) == 0:
        return float((t == p).all())
    return score(descriptor, {descriptor: t}, {descriptor: p}, CLASSES)


@settings(max_examples=12, deadline=None)
@given(labelled(), st.sampled_from(["OS", "NNRS"]))
def test_bootstrap_is_the_explicit_loop(case, descriptor):
    truth, a, b, material = case
    known = ~np.isnan(truth[descriptor])
    names = np.unique(material[known])
    rows = {name: np.flatnonzero(known & (material == name)) for name in names}
    one, two = [], []
    for times in draws_of(len(names), DRAWS, seed=3):
        index = np.concatenate([np.repeat(rows[name], n) for name, n in zip(names, times, strict=True)])
        drawn = {descriptor: truth[descriptor][index]}
        one.append(explicit(drawn, {descriptor: a[descriptor][index]}, descriptor))
        two.append(explicit(drawn, {descriptor: b[descriptor][index]}, descriptor))
    found = bootstrap(truth, a, CLASSES, material, descriptor, DRAWS, seed=3)
    assert found.value == pytest.approx(score(descriptor, truth, a, CLASSES))
    np.testing.assert_allclose((found.lo, found.hi), np.percentile(one, [2.5, 97.5]), rtol=1e-6, atol=1e-9)
    paired = paired_bootstrap(truth, a, b, CLASSES, material, descriptor, DRAWS, seed=3)
    expected = np.percentile(np.subtract(one, two), [2.5, 97.5])
    np.testing.assert_allclose((paired.lo, paired.hi), expected, rtol=1e-6, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(labelled(), st.sampled_from(["OS", "NNRS"]))
def test_the_same_predictions_do_not_differ(case, descriptor):
    truth, a, _, material = case
    found = paired_bootstrap(truth, a, a, CLASSES, material, descriptor, DRAWS)
    np.testing.assert_array_equal(np.nan_to_num([found.value, found.lo, found.hi]), 0)


def test_a_better_competitor_is_seen_to_be():
    rng = np.random.default_rng(0)
    truth = {"OS": rng.integers(0, 4, 400).astype(float)}
    worse = {"OS": np.where(rng.random(400) < 0.3, (truth["OS"] + 1) % 4, truth["OS"])}
    material = np.array([f"mp-{i}" for i in np.arange(400) // 4])
    found = paired_bootstrap(truth, truth, worse, CLASSES, material, "OS")
    assert 0 < found.lo < found.value < found.hi
    assert paired_bootstrap(truth, worse, truth, CLASSES, material, "OS").hi < 0


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Materials of five rows that are right or wrong together: 70 % of them, in 200 repeated experiments."""
    rng = np.random.default_rng(1)
    material = np.repeat([f"mp-{i}" for i in range(60)], 5)
    held = []
    for seed in range(200):
        right = np.repeat(rng.random(60) < 0.7, 5)
        found = coverage_interval(right, material, draws=300, seed=seed)
        held.append(found.lo <= 0.7 <= found.hi)
    assert 0.88 <= np.mean(held) <= 0.99


def test_coverage_is_a_share_of_rows():
    found = coverage_interval(np.array([True, True, True, False]), np.array(["a", "a", "a", "b"]), draws=100)
    assert found.value == 0.75
    assert (found.lo, found.hi) == (0.0, 1.0)


def test_what_is_not_known_has_no_score():
    truth = {"OS": np.full(3, np.nan), "NNRS": np.array([np.nan, 1.9, np.nan])}
    value = {"OS": np.ones(3), "NNRS": np.full(3, 1.8)}
    assert np.isnan(score("OS", truth, value, CLASSES))
    assert np.isnan(score("NNRS", truth, value, CLASSES))
    assert np.isnan(bootstrap(truth, value, CLASSES, np.array(["a", "b", "c"]), "OS").value)
    assert descriptor_scores(truth, Predictions({"OS": one_hot(np.ones(3))}, {}), CLASSES).empty


def test_roc_is_scikit_learns_and_leaves_out_absent_classes():
    rng = np.random.default_rng(2)
    t = rng.integers(0, 3, 200).astype(float)
    t[:20] = np.nan
    logits = rng.normal(size=(200, 4)) + 2 * (np.nan_to_num(t)[:, None] == np.arange(4))
    found = roc("OS", {"OS": t}, Predictions({"OS": logits}, {}), CLASSES)
    assert list(found.auroc) == [0, 1, 2]
    known = ~np.isnan(t)
    probability = np.exp(log_softmax(logits, axis=1))[known][:, :3]
    each = roc_auc_score(np.eye(3)[t[known].astype(int)], probability, average="weighted")
    assert found.weighted == pytest.approx(each)
    assert np.isnan(roc("OS", {"OS": np.ones(200)}, Predictions({"OS": logits}, {}), CLASSES).weighted)


def test_groups_are_scored_apart_and_small_ones_marked():
    truth = {"OS": np.array([1.0] * 12 + [2.0] * 3), "NNRS": np.array([1.9] * 12 + [1.8, 1.9, np.nan])}
    guess = {"OS": np.ones(15), "NNRS": np.full(15, 1.9)}
    groups = np.array([6.0] * 12 + [4.0] * 2 + [np.nan])
    table = by_group(truth, as_predictions(guess), CLASSES, groups)
    assert list(table.index) == ["4 (only 2)", "6"]
    assert table.loc["6", "OS"] == 1.0
    assert table.loc["4 (only 2)", "OS"] == 0.0
    assert np.isnan(float(table.loc["6", "NNRS"]))
    named = by_group(truth, as_predictions(guess), CLASSES, np.array(["spinel"] * 14 + [""]))
    assert list(named.index) == ["spinel"]


@settings(deadline=None)
@given(hnp.arrays(float, st.integers(1, 50), elements=st.floats(0, 1)))
def test_calibration_counts_every_row(confidence):
    table, error = calibration(confidence, np.ones(len(confidence), dtype=bool))
    assert int(table["rows"].to_numpy().sum()) == len(confidence)
    assert error == pytest.approx(1 - confidence.mean(), abs=1e-9)
