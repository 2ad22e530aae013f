"""A magazine of cathodes that were annealed at known temperatures, and a device that measures their spectra."""

import math
from typing import Any

import numpy as np
from ophyd import Component, Device, SoftPositioner
from ophyd.sim import SynSignal
from ophyd.status import Status

from xas_agent.agent.types import edge_ev
from xas_agent.sim_beamline.spectra import ReferenceSpectra, absorption

ENERGY = edge_ev("Co") + np.arange(-80.0, 160.0)
SPECTRA = ReferenceSpectra(1.0)
CELSIUS = np.linspace(300, 900, 20)
"""Temperatures of the samples, by place."""


def lithium(celsius: float) -> float:
    return 0.95 - 0.75 / (1 + math.exp(-(celsius - 560) / 60))


class Spectrometer(Device):
    """Measures a whole spectrum of the sample at the robot's place, in transmission."""

    energy, I0, It, Iref = (Component(SynSignal) for _ in range(4))

    def __init__(self, place: SoftPositioner, noise: float = 0.001) -> None:
        super().__init__(name="spectrometer")
        for signal in (self.energy, self.I0, self.It, self.Iref):
            signal.name = signal.attr_name
        self.place, self.noise, self.draw = place, noise, np.random.default_rng(0).normal
        self.broken: set[int] = set()
        self.metal: set[int] = set()

    def trigger(self) -> Any:  # ophyd has no types
        place = round(self.place.position)
        foil = SPECTRA.foil(ENERGY)
        normalised = foil if place in self.metal else SPECTRA.cathode(ENERGY, lithium(CELSIUS[place]))
        mu = absorption(normalised, ENERGY, 1.0, 0.6) + self.draw(0, self.noise, len(ENERGY))
        it = np.zeros(len(ENERGY)) if place in self.broken else np.exp(-mu)
        for signal, value in zip(
            (self.energy, self.I0, self.It, self.Iref),
            (ENERGY, np.ones(len(ENERGY)), it, it * np.exp(-foil)),
            strict=True,
        ):
            signal.put(value)
        status = Status()
        status.set_finished()
        return status
