"""The experiments of the simulated beamline: how their samples change, and what a closed loop gains."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from xas_agent.sim_beamline.experiments import (
    AlarmSettings,
    ChargeSettings,
    DamageSettings,
    MagazineSettings,
    ReductionSettings,
    TitrationSettings,
)
from xas_agent.sim_beamline.experiments.titration import scatter
from xas_agent.sim_beamline.sample import Answers, Course

ENERGY = 7709 + np.arange(-60, 110, 0.5)
NOBODY = Answers([])


def course(rows: Sequence[Mapping[str, Any]], end: Mapping[str, Any] | None = None) -> Course:
    numbered = [{"run": "r", "frame": n, "seconds": 60.0, **row} for n, row in enumerate(rows, 1)]
    return Course(numbered, end or numbered[-1])


@pytest.mark.parametrize(
    "settings",
    [ChargeSettings(), AlarmSettings(), TitrationSettings(), ReductionSettings(), DamageSettings()],
    ids=lambda settings: settings.kind,
)
def test_a_seed_gives_the_same_sample_and_another_seed_another(settings):
    def measured(seed: int) -> np.ndarray:
        experiment = settings.begin(seed)
        experiment.drive(True)
        spectra = []
        for frame in (1, 2):
            experiment.prepare(frame)
            spectra.append(experiment.expose(ENERGY, 100.0))
        return np.array(spectra)

    np.testing.assert_array_equal(measured(1), measured(1))
    assert np.any(measured(1) != measured(2))


def test_a_reduction_goes_through_its_intermediate_and_ends_reduced():
    settings = ReductionSettings()
    sample = settings.begin(0)
    sample.drive(True)
    x, pure = [], []
    for _ in range(int(settings.duration_s / 60)):
        x.append(sample.advance(60.0)[1])
        pure.append(sample.intermediate)
    assert np.all(np.diff(x) >= 0)
    assert max(pure) > settings.pure
    assert x[int(np.argmax(pure))] == pytest.approx(settings.x_intermediate, abs=0.02)
    assert x[-1] == pytest.approx(settings.x_reduced, abs=1e-3)


def test_a_reduction_does_not_depend_on_how_time_is_cut_and_a_furnace_held_keeps_its_temperature():
    fine, coarse = (ReductionSettings().begin(3) for _ in range(2))
    for sample in (fine, coarse):
        sample.drive(True)
    for _ in range(240):
        fine.advance(5.0)
    coarse.advance(1200.0)
    assert fine.x == pytest.approx(coarse.x, abs=1e-9)
    held = fine.temperature_c
    fine.knobs["furnace_ramp"].put(0.0)
    fine.advance(600.0)
    assert fine.temperature_c == held == pytest.approx(180 + 6 * 20)
    fine.knobs["furnace_ramp"].put(10.0)
    fine.drive(False)  # a pause holds it, too
    fine.advance(60.0)
    assert fine.temperature_c == held


def test_damage_grows_with_the_dose_of_its_spot_and_a_fresh_spot_has_none():
    settings = DamageSettings(dose_s=1000.0)
    sample = settings.begin(0)
    fresh = sample.x
    sample.advance(500.0)
    once = sample.x
    sample.advance(500.0)
    assert fresh < once < sample.x < 1
    assert sample.x - once < once - fresh  # it saturates
    damaged = sample.x
    sample.knobs["sample_position"].put(1.0)
    assert sample.truth() == {"damage_e": 0.0, "spot": 1}
    sample.advance(10.0)
    sample.knobs["sample_position"].put(0.0)
    assert sample.x == damaged


def test_a_titration_charges_between_its_frames_and_rests_in_the_beam():
    settings = TitrationSettings(charge_x=0.4, steps=4, spread=0.0, weak_first=2, weak_last=2, weak_flux=0.1)
    sample = settings.begin(0)
    x, flux = [], []
    for frame in range(1, 6):
        sample.prepare(frame)
        before, after = sample.advance(1000.0)
        assert before == after
        x.append(after)
        flux.append(sample.transmission)
    np.testing.assert_allclose(np.diff(x), -0.1, atol=1e-9)
    assert flux == [1.0, 0.1, 1.0, 1.0, 1.0]


def test_the_crew_removes_the_foil_only_when_told():
    settings = AlarmSettings(first_frame=3, last_frame=9, crew_frames=1)

    def frames_with_foil(told_in: int) -> list[int]:
        sample = settings.begin(0)
        found = []
        for frame in range(1, 13):
            sample.prepare(frame)
            if frame == told_in:
                sample.told({"rule": "r"})
            if sample.foil:
                found.append(frame)
        return found

    assert frames_with_foil(told_in=5) == [3, 4, 5, 6]
    assert frames_with_foil(told_in=1) == [3, 4, 5, 6, 7, 8, 9]  # about nothing
    sample = settings.begin(0)
    bare = sample.absorbs(ENERGY, np.full(len(ENERGY), 0.5))
    sample.prepare(3)
    step = (sample.absorbs(ENERGY, np.full(len(ENERGY), 0.5)) - bare)[[0, -1]]
    assert np.diff(step)[0] == pytest.approx(settings.foil_edge_step, rel=0.1)


def test_a_magazine_has_every_composition_in_an_order_of_the_seed():
    settings = MagazineSettings()
    orders = [tuple(settings.at_place(n, seed).begin(seed).x for n in range(settings.places)) for seed in (0, 1, 2)]
    assert all(sorted(order) == sorted(settings.compositions) for order in orders)
    assert len({*orders}) > 1


def test_what_a_stopped_charge_gains():
    rows = [{"x": x} for x in (1.0, 0.6, 0.2, 0.1, 0.05)]
    found = ChargeSettings().gain(course(rows), course(rows[:3]), NOBODY)
    assert (found.amount, found.numbers["open"], found.numbers["closed"]) == (2, 2, 0)
    assert found.numbers["charge_used"] == pytest.approx(0.8 / 0.85)
    assert "2 of 5 frames" in found.open_loop


def test_what_a_held_plateau_gains():
    def rows(pure: int) -> list[dict[str, Any]]:
        return [{"x": 0.5, "intermediate": 0.95 if n < pure else 0.5} for n in range(10)]

    found = ReductionSettings().gain(course(rows(3)), course(rows(7)), NOBODY)
    assert (found.amount, found.gained) == (4, "4 frames on the intermediate, 4 min")


def test_what_a_search_gains():
    settings = MagazineSettings(compositions=(1.0, 0.5, 0.2))
    opened = [{"x": x, "place": place} for place, x in enumerate((1.0, 0.5, 0.2), 1) for _ in range(4)]
    closed = [{"x": 1.0, "place": 1}] * 2 + [{"x": 0.5, "place": 2}] * 10
    found = settings.gain(course(opened), course(closed), NOBODY)
    assert (found.amount, found.numbers["searched"]) == (6, 2)
    assert "as sample 2, after 2 frames and 2 min; 10 of 12 frames" in found.closed_loop
    lost = settings.gain(course(opened), course(closed[:2]), NOBODY)
    assert (lost.amount, lost.closed_loop) == (-4, "the target was not reached in 2 frames")


def test_what_fresh_spots_gain():
    opened = [{"x": 0.4, "damage_e": 0.02 * n, "spot": 0} for n in range(10)]
    closed = [{"x": 0.4, "damage_e": 0.02 * (n % 5), "spot": n // 5} for n in range(10)]
    found = DamageSettings(limit_e=0.08).gain(course(opened), course(closed), NOBODY)
    assert (found.amount, found.numbers["spots"]) == (5, 2)
    assert (found.numbers["worst_open_e"], found.numbers["worst_closed_e"]) == (0.18, 0.08)


def test_what_an_alarm_gains_and_whether_it_was_misled():
    opened = [{"x": 0.9, "foil": 2 <= n < 8} for n in range(10)]
    closed = [{"x": 0.9, "foil": 2 <= n < 4} for n in range(10)]
    frames = [{"run_uid": "r", "seq_num": n, "frame_uid": f"f{n}"} for n in range(1, 11)]
    alarm = {"action": "notify", "evidence": '[["f3", 1.3]]'}
    for decisions, misled in (([alarm], 0), ([alarm, {"action": "stop", "evidence": '[["f4", 3.6]]'}], 1)):
        found = AlarmSettings().gain(course(opened), course(closed), Answers(frames, decisions))
        assert found is not None
        assert (found.amount, found.numbers["misled"]) == (4, misled)
    assert AlarmSettings().gain(course(opened), course(closed[:2]), NOBODY) is None


def test_what_repeated_frames_gain():
    deviations = [0.1, -0.1, 0.1, -0.1]
    opened = [{"x": 0.5, "state": n, "weak": True, "time_s": 60.0 * n} for n in range(1, 5)]
    closed, frames = [], []
    for row, deviation in zip(opened, deviations, strict=True):
        for factor in (1, 16):
            closed.append({**row, "seconds": 60.0 * factor})
            frames.append({"run_uid": "r", "seq_num": len(closed), "OS_mean": 3.5 + deviation / factor**0.5})
    closed = course(closed, {"x": 0.5, "time_s": 60.0 * 17 * 4})
    found = TitrationSettings().gain(course(opened), closed, Answers(frames))
    assert found is not None
    assert found.amount == pytest.approx(scatter(deviations) * 3 / 4)
    assert found.numbers["h_always"] == pytest.approx(16 * 4 / 60)
    assert "with 4 frames repeated" in found.closed_loop
    early = Course(closed.frames[:6], closed.end)
    assert TitrationSettings().gain(course(opened), early, Answers(frames)) is None
    bright = course([{**row, "weak": False} for row in closed.frames], closed.end)
    assert TitrationSettings().gain(course(opened), bright, Answers(frames)) is None


def test_scatter_leaves_out_what_changes_slowly():
    rng = np.random.default_rng(0)
    assert scatter(list(np.linspace(0, 1, 400) + rng.normal(0, 0.05, 400))) == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        (AlarmSettings, {"first_frame": 9, "last_frame": 3}, "at least first_frame 9"),
        (TitrationSettings, {"weak_first": 9, "weak_last": 3}, "at least weak_first 9"),
        (MagazineSettings, {"compositions": [1.0, 0.2]}, "found 0 compositions within 0.05 of target_x"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, values, message):
    with pytest.raises(ValueError, match=message):
        settings(**values)
