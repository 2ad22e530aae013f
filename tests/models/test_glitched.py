"""Glitches leave the estimates of the shipped models where they are."""

import numpy as np
import pytest

from xas_agent.agent.spectra.align import align
from xas_agent.agent.spectra.batch import Batch
from xas_agent.agent.spectra.glitches import GlitchSettings
from xas_agent.agent.spectra.settings import AlignmentSettings
from xas_agent.models import card
from xas_agent.models.runtime import Model
from xas_agent.sim_beamline.beamline import SimBeamline
from xas_agent.sim_beamline.settings import BeamlineSettings

SIGMA = 0.003


@pytest.fixture(scope="module")
def frames():
    """Energies (M,) eV and μ (N, M), in edge steps, of a charge at the Co K edge."""
    events = []
    beamline = SimBeamline(BeamlineSettings(frames=8, frame_period_s=0), [lambda n, d: events.append((n, d))])
    beamline.run()
    data = [d["data"] for n, d in events if n == "event" and "It" in d["data"]]
    mu = np.stack([np.log(d["I0"] / d["It"]) for d in data])
    return np.asarray(data[0]["energy"]), mu / np.ptp(mu, axis=1, keepdims=True)


def test_means_stay_within_the_interval_once_glitches_are_repaired(frames):
    energy, mu = frames
    model, rng = Model(card.find("co-k")), np.random.default_rng(0)
    at = rng.random(mu.shape) < 0.05
    spoiled = mu + np.where(at, rng.choice([-1, 1], mu.shape) * rng.uniform(5, 50, mu.shape) * SIGMA, 0.0)

    def said(spectra, glitches):
        how = AlignmentSettings(glitches=glitches, gross_glitches=False)
        aligned = align(Batch(energy, spectra), model.grid, model.edge, how)
        assert not any(aligned.refused)
        return model.estimate(aligned.mu)

    def moved(estimates):
        """In halves of the interval, of which one may be cut off where nothing can be."""
        pairs = [
            (b.descriptors[name].mean - d.mean, max(d.hi - d.mean, d.mean - d.lo))
            for a, b in zip(clean, estimates, strict=True)
            for name, d in a.descriptors.items()
        ]
        return np.array([abs(by) / half for by, half in pairs])

    clean = said(mu, None)
    repaired, left = moved(said(spoiled, GlitchSettings())), moved(said(spoiled, None))
    assert (repaired <= 1).all()
    assert np.median(repaired) < 0.5 * np.median(left)
