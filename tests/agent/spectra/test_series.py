"""Test the alignment of frames in a series."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from logs import capture_logs

from xas_agent.agent.spectra.glitches import GlitchSettings
from xas_agent.agent.spectra.series import SeriesAlignment
from xas_agent.agent.spectra.settings import AlignmentSettings
from xas_agent.agent.types import Reach
from xas_agent.agent.types.edge import Edge
from xas_agent.agent.types.frame import Frame
from xas_agent.agent.types.grid import Grid
from xas_agent.agent.types.reasons import Flag, Reason
from xas_agent.agent.types.scan import Scan

EDGE_EV = 8333.0


@dataclass
class Model:
    """The part of a model that alignment needs."""

    name: str = "ni-k"
    absorber: str = "Ni"
    edge_name: str = "K"
    sha256: str = ""
    grid: Grid = Grid(-9, 60, 1, (-9, -6), (30, 60))  # noqa: RUF009
    edge: Edge = Edge(EDGE_EV)  # noqa: RUF009
    units: dict[str, str] = field(default_factory=dict)
    single_site: frozenset[str] = frozenset()
    hardly_known: frozenset[str] = frozenset()
    reach: dict[str, Reach] = field(default_factory=dict)

    def estimate(self, spectra, extra_sd=None):
        raise AssertionError("alignment asked the model for estimates")


def frame(number, start=-150.0, stop=600.0, run="a", seed=None):
    x = np.concatenate([np.arange(start, -30, 4.0), np.arange(max(start, -30.0), min(stop, 60.0), 0.5)])
    x = np.concatenate([x, np.arange(60.0, stop, 3.0)])
    exafs = 0.1 * np.sin(x / 7) * np.exp(-x / 60) * (x > 0)
    mu = 0.4 + 0.8 * (0.5 + np.tanh(x / 2.5) / 2 + exafs) - 3e-4 * x
    rng = np.random.default_rng(number)
    mu = mu + 0.002 * rng.normal(size=len(x))
    if seed is not None:
        spoiled = np.random.default_rng(seed)
        mu = mu + np.where(spoiled.random(len(x)) < 0.05, spoiled.choice([-0.06, 0.06], len(x)), 0)
    return Frame(str(number), run, number, float(number), EDGE_EV + x, mu)


def align_singly(frames, settings):
    align = SeriesAlignment(settings)
    return [align([f], Model()) for f in frames]


def test_short_frame_uses_the_background_of_its_series():
    frames = [frame(0), frame(1), frame(2, -12.0, 90.0), frame(3, -12.0, 90.0, run="b"), frame(4)]
    aligned = align_singly(frames, AlignmentSettings())
    assert [f.refused[0] and f.refused[0].reason for f in aligned] == [None, None, None, Reason.NO_PRE_EDGE, None]
    assert aligned[2].flags == ((Flag.BACKGROUND_HELD,),)
    assert np.abs(aligned[2].mu - aligned[0].mu).max() < 0.03


def test_samples_keep_their_backgrounds_and_ways_of_measuring_apart():
    a, b = Scan("a"), Scan("b")
    frames = [
        replace(frame(0), scan=a),
        replace(frame(1, -12.0, 90.0), scan=b),
        replace(frame(2, -12.0, 90.0), scan=a, formula="fluorescence"),
        replace(frame(3, -12.0, 90.0, run="later"), scan=a),
    ]
    reasons = [f.refused[0] and f.refused[0].reason for f in align_singly(frames, AlignmentSettings())]
    assert reasons == [None, Reason.NO_PRE_EDGE, Reason.NO_PRE_EDGE, None]


@pytest.mark.parametrize("size", [1, 3, 9])
def test_batch_size_changes_nothing(size):
    frames = [frame(i, seed=i) for i in range(9)]
    settings = AlignmentSettings(glitches=GlitchSettings())
    align = SeriesAlignment(settings)
    together = [align(frames[k : k + size], Model()) for k in range(0, 9, size)]
    mu = np.concatenate([a.mu for a in together])
    np.testing.assert_allclose(mu, np.concatenate([a.mu for a in align_singly(frames, settings)]), atol=1e-6)
    assert all(flags == (Flag.GLITCHES_REPAIRED,) for a in together for flags in a.flags)


def test_repair_brings_frames_closer_to_good_ones():
    frames, good = [frame(i, seed=i) for i in range(9)], [frame(i) for i in range(9)]
    expected = np.concatenate([a.mu for a in align_singly(good, AlignmentSettings())])
    unrepaired = np.concatenate([a.mu for a in align_singly(frames, AlignmentSettings(gross_glitches=False))])
    repaired = np.concatenate([a.mu for a in align_singly(frames, AlignmentSettings(glitches=GlitchSettings()))])
    assert np.abs(repaired - expected).mean() < 0.3 * np.abs(unrepaired - expected).mean()


def test_earlier_frames_on_other_energies_are_ignored():
    settings = AlignmentSettings(glitches=GlitchSettings())
    frames = [frame(i) for i in range(6)] + [frame(6, stop=400.0), frame(7)]
    assert all(a.refused == (None,) for a in align_singly(frames, settings))


def test_oldest_series_is_forgotten():
    align = SeriesAlignment(AlignmentSettings(), max_series=2)
    for f in (frame(0), frame(1, run="b"), frame(2, run="c")):
        align([f], Model())
    assert align([frame(3, -12.0, 90.0)], Model()).refused[0] is not None
    assert align([frame(4, -12.0, 90.0, run="c")], Model()).refused[0] is None


def with_foil(number, upside_down=False, formula="transmission"):
    plain = frame(number)
    foil = 0.6 * (0.5 + np.arctan((plain.energy - EDGE_EV) / 1.2) / np.pi)
    return replace(plain, reference=-foil if upside_down else foil, formula=formula)


def test_falling_reference_is_reported_in_a_series_of_good_foils():
    frames = [with_foil(0), with_foil(1, True), with_foil(2, True, "fluorescence"), with_foil(3, formula="mu")]
    found = align_singly(frames, AlignmentSettings())
    assert [f.refused[0] and f.refused[0].reason for f in found] == [None, Reason.REFERENCE_UPSIDE_DOWN, None, None]
    assert [f.flags[0] for f in found[2:]] == [(Flag.REFERENCE_UPSIDE_DOWN,), ()]
    assert found[2].quantities["foil_shift_ev"] == pytest.approx(found[0].quantities["foil_shift_ev"], abs=1e-9)


def test_frames_of_other_formulas_are_aligned_apart():
    align = SeriesAlignment(AlignmentSettings())
    assert align.kind(with_foil(0)) != align.kind(with_foil(0, formula="mu"))


def after_foils(minutes, sample="", run="a", foils=10):
    """Return ten frames with a foil, one a minute, and frames without one at the given minutes."""
    scan = Scan(sample)
    calibrated = [replace(with_foil(k, formula="mu"), time=60.0 * k, scan=Scan("cell")) for k in range(foils)]
    return calibrated, [replace(frame(m, run=run), time=60.0 * m, scan=scan, formula="mu") for m in minutes]


def flags_of(align, frames, together=False):
    if together:
        return list(align(frames, Model()).flags)
    return [align([one], Model()).flags[0] for one in frames]


@pytest.mark.parametrize("together", [False, True])
def test_the_frames_after_a_forgotten_foil_are_flagged_and_it_is_told_once(together):
    """The energies then step to the configured shift, and with them the estimates."""
    align = SeriesAlignment(AlignmentSettings())
    calibrated, later = after_foils(range(60, 80), "cell")
    flags_of(align, calibrated, together)
    with capture_logs() as logs:
        flags = flags_of(align, later, together)
    assert flags == [(Flag.FOIL_HELD,)] * 10 + [(Flag.FOIL_FORGOTTEN,)] * 10
    assert [line["log_level"] for line in logs] == ["warning"]
    assert "forget_s" in logs[0]["event"]
    resumed = SeriesAlignment(AlignmentSettings())
    resumed.restore(align.memory(later[-1], Model()))
    one = replace(later[-1], time=4800.0)
    assert flags_of(resumed, [one]) == [(Flag.FOIL_FORGOTTEN,)]
    again = [replace(calibrated[0], time=4860.0), replace(one, time=4920.0)]
    assert flags_of(resumed, again) == [(), (Flag.FOIL_HELD,)]


def test_a_sample_that_no_foil_calibrated_does_not_step():
    """Its frames have the configured shift from the first one on: their error is common to all."""
    align = SeriesAlignment(AlignmentSettings())
    calibrated, later = after_foils(range(80, 83), "another")
    flags_of(align, calibrated)
    with capture_logs() as logs:
        found = [align([one], Model()) for one in later]
    assert [f.flags for f in found] == [((),)] * 3
    assert [f.quantities["energy_sd_frame_ev"][0] for f in found] == [0.0] * 3
    assert not logs


def test_runs_without_a_sample_are_one_series_for_the_foil():
    """Many beamlines write a run per scan and name no sample; there, too, the energies step."""
    align = SeriesAlignment(AlignmentSettings())
    first = [replace(with_foil(0, formula="mu"), run_uid="first")]
    later = [replace(frame(90, run=f"run {m}"), time=60.0 * m, formula="mu") for m in (90, 91)]
    assert flags_of(align, [*first, *later]) == [(), (Flag.FOIL_FORGOTTEN,), (Flag.FOIL_FORGOTTEN,)]


def test_frames_before_any_foil_are_not_flagged():
    align = SeriesAlignment(AlignmentSettings())
    assert flags_of(align, [replace(frame(k), time=7200.0 * k) for k in range(3)]) == [()] * 3
