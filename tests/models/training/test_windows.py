"""Intervals of spectra that end before the grid."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from windowed import CONFIG, SHORT_EV, STOP_EV

from xas_agent.app.jobs.evaluate import evaluate_model
from xas_agent.models import card as cards
from xas_agent.models.card import Interval, WindowScale
from xas_agent.models.runtime import Model
from xas_agent.models.training.config import TrainingConfig
from xas_agent.models.training.export import describe, residuals
from xas_agent.models.training.metrics import conformal_scale, window_scales
from xas_agent.models.training.plan import TrainingPlan
from xas_agent.models.training.windows import MIN_ROWS, cut_rows, half_edge_ev, window_points

WINDOWS = (
    WindowScale(stop_ev=27.0, scale=3.0),
    WindowScale(stop_ev=40.0, scale=2.0),
    WindowScale(stop_ev=98.0, scale=1.5),
)


def test_the_factor_is_interpolated_between_windows():
    interval = Interval(scale=1.5, floor=0.3, windows=WINDOWS)
    ends = np.array([20.0, 27.0, 33.5, 40.0, 69.0, 98.0, 120.0])
    half = interval.half_width(np.full(7, 0.4), ends)
    np.testing.assert_allclose(half / 0.5, [3.0, 3.0, 2.5, 2.0, 1.75, 1.5, 1.5])


def test_one_factor_serves_all_spectra_of_an_earlier_model():
    half = Interval(scale=2.0, floor=0.0).half_width(np.array([0.1, 0.2]), np.array([30.0, 98.0]))
    np.testing.assert_allclose(half, [0.2, 0.4])


def test_windows_are_those_of_measured_scans(windowed):
    plan = windowed.plan
    edge = half_edge_ev(plan.clean[plan.learnt], plan.rows.grid.energy)
    assert edge == pytest.approx(19, abs=1)
    ends = [plan.rows.grid.energy[n - 1] for n in window_points(plan)]
    # 80 eV above the edge lies beyond the grid.
    assert ends == [SHORT_EV, 32.0, edge + 25, edge + 40, STOP_EV]
    assert plan.rows.reach is not None
    reach = plan.rows.reach.clone()
    reach[plan.learnt[:40]] = 44
    shorter = replace(plan, rows=replace(plan.rows, reach=reach))
    assert window_points(shorter) == tuple(sorted({*window_points(plan), 44}))
    whole = TrainingConfig.model_validate(CONFIG | {"grid": CONFIG["grid"] | {"short_stop_ev": None}})
    assert window_points(TrainingPlan.read(whole, windowed.data)) == ()


@pytest.mark.parametrize("points", [37, 42, 60])
def test_rows_are_cut_as_a_scan_that_ends_there(windowed, points):
    plan, grid = windowed.plan, windowed.plan.rows.grid
    rows, spectra = cut_rows(plan, plan.judged, points)
    np.testing.assert_array_equal(rows, plan.judged)
    assert (~spectra.isnan()).sum(1).tolist() == [points] * len(rows)
    served = grid.footing(grid.cut(plan.clean[rows].double().numpy(), np.full(len(rows), grid.energy[points - 1])))
    np.testing.assert_allclose(spectra.numpy(), served, atol=1e-5)


def test_rows_that_do_not_reach_a_window_do_not_judge_it(windowed):
    plan = windowed.plan
    assert plan.rows.reach is not None
    before = plan.rows.reach[plan.judged[0]].clone()
    plan.rows.reach[plan.judged[0]] = 40
    try:
        assert len(cut_rows(plan, plan.judged, 40)[0]) == len(plan.judged)
        np.testing.assert_array_equal(cut_rows(plan, plan.judged, 41)[0], plan.judged[1:])
    finally:
        plan.rows.reach[plan.judged[0]] = before


def test_every_interval_has_the_factors_of_its_windows(windowed):
    card = cards.verify(windowed.model)
    ends = [windowed.plan.rows.grid.energy[n - 1] for n in window_points(windowed.plan)]
    for d in card.descriptors:
        assert [w.stop_ev for w in d.interval.windows] == ends, d.name
        assert d.interval.windows[-1].scale == d.interval.scale
    assert card.training["half_edge_ev"] == half_edge_ev(
        windowed.plan.clean[windowed.plan.learnt], windowed.plan.rows.grid.energy
    )


@pytest.mark.parametrize(("seed", "growth"), [(0, 1.5), (1, 2.0), (2, 4.0)])
def test_intervals_hold_their_share_of_the_rows_that_calibrate_each_window(windowed, seed, growth):
    """The means of short spectra are off by more than their standard deviations say."""
    plan, draw = windowed.plan, np.random.default_rng(seed)
    rows, points = plan.learnt, window_points(plan)
    true = plan.data.labels["OS_mean"][rows]

    def judged(n: int):
        error = draw.normal(size=len(rows)) * 0.1 * growth ** (len(points) - points.index(n))
        return rows, {"OS_mean": (true + error, true + error, np.full(len(rows), 0.1))}

    windows = {n: judged(n) for n in points}
    card = describe(plan, "OS", windows[points[-1]], windows)
    for n, found in windows.items():
        error, sd = residuals(plan, "OS_mean", found)
        assert len(error) == len(rows)
        half = card.interval.half_width(sd, np.full(len(error), plan.rows.grid.energy[n - 1]))
        assert (np.abs(error) <= half + 1e-4).mean() == pytest.approx(0.9, abs=0.02)


@given(st.integers(0, 2**31), st.lists(st.integers(0, 3), min_size=1, max_size=7), st.floats(0.2, 5))
def test_no_window_has_a_larger_factor_than_a_shorter_one_of_the_same_rows(seed, thinned, growth):
    draw, rows = np.random.default_rng(seed), 100
    ratios = []
    for k, halvings in enumerate(thinned):
        rows = max(rows >> halvings, 1)
        ratios.append(np.abs(draw.normal(size=rows)) * growth**k)
    scales = window_scales(ratios, 0.9)
    assert len(scales) == len(ratios)
    for k in range(1, len(ratios)):
        if len(ratios[k]) == len(ratios[k - 1]):
            assert scales[k] <= scales[k - 1]
    # Those that are in order, or of other rows, keep their own.
    for k, (ratio, scale) in enumerate(zip(ratios, scales, strict=True)):
        shares = [s for i, s in enumerate(scales) if i != k and len(ratios[i]) == len(ratio)]
        if scale not in shares:
            assert scale == conformal_scale(ratio, np.ones(len(ratio)), 0.9)


def test_windows_out_of_order_share_the_factor_of_all_their_rows():
    easy, hard = np.linspace(0, 1, 99), np.linspace(0, 2, 99)
    np.testing.assert_allclose(window_scales([hard, easy], 0.9), [1.8, 0.9], atol=0.02)
    first, second = window_scales([easy, hard], 0.9)
    assert first == second == pytest.approx(1.6, abs=0.04)
    held = np.mean(np.concatenate([easy, hard]) <= first)
    assert held == pytest.approx(0.9, abs=0.01)


def test_harder_rows_that_alone_reach_a_window_widen_its_intervals_only():
    easy, hard = np.linspace(0, 1, 99), np.linspace(0, 2, 49)
    np.testing.assert_allclose(window_scales([easy, hard, hard], 0.9), [0.9, 1.8, 1.8], atol=0.04)


def test_a_window_of_few_rows_calibrates_nothing(windowed):
    plan, points = windowed.plan, window_points(windowed.plan)
    rows = plan.learnt
    true = plan.data.labels["OS_mean"][rows]
    some = {"OS_mean": (true + 0.1, true + 0.1, np.full(len(rows), 0.1))}
    few = {"OS_mean": tuple(a[: MIN_ROWS - 1] for a in some["OS_mean"])}
    card = describe(plan, "OS", (rows, some), {points[0]: (rows, some), points[-1]: (rows[: MIN_ROWS - 1], few)})  # pyright: ignore[reportArgumentType]
    assert [w.stop_ev for w in card.interval.windows] == [SHORT_EV]
    alone = describe(plan, "OS", (rows, some), {})
    assert alone.interval.windows == ()
    assert alone.interval.scale == card.interval.scale


def test_the_model_chooses_the_factor_by_the_end_of_each_spectrum(windowed, tmp_path):
    folder = tmp_path / "wide"
    folder.mkdir()
    (folder / "model.ts").write_bytes((windowed.model / "model.ts").read_bytes())
    card = yaml.safe_load((windowed.model / "card.yaml").read_text())
    for d in card["descriptors"]:
        d["interval"] |= {"scale": 1.0, "windows": [{"stop_ev": 27.0, "scale": 3.0}, {"stop_ev": 72.0, "scale": 1.0}]}
        d["lowest"] = None
    (folder / "card.yaml").write_text(yaml.safe_dump(card, allow_unicode=True))
    plain = yaml.safe_load((folder / "card.yaml").read_text())
    for d in plain["descriptors"]:
        d["interval"]["windows"] = []
    other = tmp_path / "plain"
    other.mkdir()
    (other / "model.ts").write_bytes((windowed.model / "model.ts").read_bytes())
    (other / "card.yaml").write_text(yaml.safe_dump(plain, allow_unicode=True))
    plan, (wide, narrow) = windowed.plan, (Model(f, "cpu") for f in (folder, other))
    ends = torch.tensor([37, 60, 82])
    spectra = plan.rows.cut(plan.clean[plan.judged[:3]], ends).numpy()
    for i, (one, reference) in enumerate(zip(wide.estimate(spectra), narrow.estimate(spectra), strict=True)):
        factor = np.interp(plan.rows.grid.energy[ends[i] - 1], [27.0, 72.0], [3.0, 1.0])
        for name in ("NNRS", "MOOD"):
            a, b = one.descriptors[name], reference.descriptors[name]
            assert a.mean == b.mean
            assert a.hi - a.lo == pytest.approx(factor * (b.hi - b.lo), rel=1e-6)


def test_a_spectrum_is_estimated_alike_alone_and_among_others_of_other_ends(windowed):
    plan, model = windowed.plan, Model(windowed.model, "cpu")
    spectra = plan.rows.cut(plan.clean[plan.judged[:4]], torch.tensor([37, 50, 60, 82])).numpy()
    for spectrum, among in zip(spectra, model.estimate(spectra), strict=True):
        (alone,) = model.estimate(spectrum[None])
        for name, d in among.descriptors.items():
            np.testing.assert_allclose([d.mean, d.lo, d.hi], _numbers(alone, name), rtol=1e-4, atol=1e-5)
            assert np.isfinite([d.mean, d.lo, d.hi]).all()
        assert alone.ood_score == pytest.approx(among.ood_score, rel=1e-4)


@pytest.mark.slow
def test_coverage_and_width_are_printed_for_each_window(windowed, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    evaluate_model(str(windowed.model), windowed.data, "val", None)
    said = capsys.readouterr().out
    assert "co-windows on 36 of 36 rows of many, split val" in said
    lines = [line.split() for line in said.splitlines() if line.startswith("+")]
    os_lines = {line[0]: line for line in lines if "OS" in line}
    assert list(os_lines) == ["+8", "+13", "+25", "+40", "+53"]
    served, plan = Model(windowed.model, "cpu"), windowed.plan
    rows, spectra = cut_rows(plan, plan.judged, window_points(plan)[0])
    found = [e.descriptors["OS"] for e in served.estimate(spectra.numpy())]
    truth = plan.data.labels["OS_mean"][rows]
    held = np.mean([d.lo <= t <= d.hi for d, t in zip(found, truth, strict=True)])
    half = np.median([d.hi - d.lo for d in found]) / 2
    shortest = " ".join(os_lines["+8"])
    assert f"{held:.1%} 36 weighted F1" in shortest
    assert float(shortest.split(" e ")[1]) == pytest.approx(half, abs=0.01)


def _numbers(estimate, name: str) -> list[float]:
    d = estimate.descriptors[name]
    return [d.mean, d.lo, d.hi]


def test_an_earlier_model_folder_is_read(tmp_path):
    shipped = Path(cards.__file__).parent / "shipped" / "co-k"
    card = cards.verify(shipped)
    assert card.grid.short_stop_ev is None
    assert all(d.interval.windows == () for d in card.descriptors)
