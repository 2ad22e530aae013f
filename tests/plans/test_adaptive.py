"""Adaptive scans with a real RunEngine and ophyd devices, and an agent that listens."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from ophyd import Component, Device, SoftPositioner
from ophyd.sim import SynSignal
from ophyd.status import DeviceStatus

from xas_agent import XASAgent
from xas_agent.agent.propose import EnergySettings
from xas_agent.agent.types import edge_ev
from xas_agent.plans import adaptive_xanes, transmission
from xas_agent.sim_beamline.spectra import ReferenceSpectra, absorption

CO_K_EDGE_EV = edge_ev("Co")
SPECTRA = ReferenceSpectra(1.0)
MONO_ERROR_EV = 0.8


class Chambers(Device):
    """I0, It and Iref behind a LixCoO2 cathode and a Co foil, whose incident beam decays; the energy is off."""

    I0, It, Iref = (Component(SynSignal) for _ in range(3))

    def __init__(self, mono: SoftPositioner, x: float, noise: float = 0.0) -> None:
        super().__init__(name="chambers")
        for signal in (self.I0, self.It, self.Iref):
            signal.name = signal.attr_name
        self.mono, self.x, self.noise = mono, x, np.random.default_rng(0).normal
        self.sd, self.read_out = noise, 0

    def trigger(self) -> DeviceStatus:
        self.read_out += 1
        energy = np.array([float(self.mono.position or 0.0) - MONO_ERROR_EV])
        mu = absorption(SPECTRA.cathode(energy, self.x), energy, 0.9, 0.6)[0]
        beam = 2.0 * np.exp(-self.read_out / 500)
        behind = beam * np.exp(-mu + self.noise(0, self.sd))
        for signal, value in zip(
            (self.I0, self.It, self.Iref), (beam, behind, behind * np.exp(-SPECTRA.foil(energy)[0])), strict=True
        ):
            signal.put(float(value))
        status = DeviceStatus(self)
        status.set_finished()
        return status


@pytest.fixture
def mono() -> SoftPositioner:
    return SoftPositioner(name="energy", init_pos=CO_K_EDGE_EV, egu="eV")


def run(plan: Any, *callbacks: Callable[[str, dict[str, Any]], object]) -> None:
    RE = RunEngine({})
    for callback in callbacks:
        RE.subscribe(callback)
    RE(plan)


def foil(values: Any) -> float:
    return transmission("It", "Iref")(values)


def full(chambers: Chambers) -> Any:
    from bluesky.plans import list_scan

    energies = np.arange(CO_K_EDGE_EV - 60, CO_K_EDGE_EV + 110, 0.3)
    return list_scan([chambers], chambers.mono, list(energies), md={"element": "Co", "edge": "K"})


@pytest.mark.slow
def test_the_agent_answers_an_adaptive_scan_as_a_full_one(mono, tmp_path):
    answers: list[dict[str, Any]] = []

    def keep(name: str, doc: dict[str, Any]) -> None:
        if name == "event" and "OS" in doc["data"]:
            answers.append(doc["data"])

    agent = XASAgent.from_config({"model": {"use": ["co-k"]}})
    agent.subscribe(keep)
    chambers = Chambers(mono, 0.6, 0.002)
    documents: list[tuple[str, dict[str, Any]]] = []
    try:
        run(full(chambers), agent)
        settings = EnergySettings(error=0.004)
        plan = adaptive_xanes([chambers], mono, element="Co", settings=settings, foil=foil, num=2, at_once=4)
        run(plan, agent, lambda *document: documents.append(document))
    finally:
        agent.close()
    whole, *adaptive = answers
    assert len(adaptive) == 2
    for answer in adaptive:
        assert answer["OS"] == pytest.approx(whole["OS"], abs=0.03)
        assert answer["CN"] == pytest.approx(whole["CN"], abs=0.1)
    names = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    streams = [names[doc["descriptor"]] for name, doc in documents if name == "event"]
    assert streams.count("primary") == 2
    assert streams.count("adaptive_points") < 2 * 567 / 5
    assert documents[0][1]["element"] == "Co"
    assert documents[-1][1]["exit_status"] == "success"


def test_a_scan_without_beam_ends_without_a_spectrum(mono, caplog):
    def nothing(values: Any) -> float:
        return transmission("I0", "zero")({**values, "zero": 0.0})

    documents: list[str] = []
    settings = EnergySettings(max_points=20)
    plan = adaptive_xanes([Chambers(mono, 0.6)], mono, element="Co", settings=settings, absorption=nothing)
    run(plan, lambda name, doc: documents.append(name))
    assert documents.count("event") == 20
    assert documents[-1] == "stop"
    assert "no spectrum of an adaptive scan" in caplog.text


def test_a_foil_that_fails_costs_only_its_own_spectrum(mono, caplog):
    documents: list[tuple[str, dict[str, Any]]] = []
    plan = adaptive_xanes(
        [Chambers(mono, 0.6)],
        mono,
        element="Co",
        foil=lambda values: float("nan"),
        settings=EnergySettings(error=0.01),
    )
    run(plan, lambda *document: documents.append(document))
    [spectrum] = [doc["data"] for name, doc in documents if name == "event" and "mu" in doc["data"]]
    assert np.isfinite(spectrum["mu"]).all()
    assert np.isnan(spectrum["mu_reference"]).all()
    assert "no spectrum of the foil" in caplog.text


def test_a_wrong_data_key_is_named_with_those_there_are(mono):
    plan = adaptive_xanes([Chambers(mono, 0.6)], mono, element="Co", absorption=transmission("I0", "trans"))
    with pytest.raises(ValueError, match="found no number 'trans' among the readings, expected one of: I0, It, Iref"):
        run(plan)


def test_the_energy_is_what_the_positioner_reads():
    class Mono(SoftPositioner):
        """Reads under another name than its own, 0.1 eV off; once it reads nothing."""

        reads = 0

        @property
        def hints(self) -> dict[str, Any]:
            return {"fields": ["mono_readback"]}

        def read(self) -> Any:
            self.reads += 1
            value = np.nan if self.reads == 30 else float(self.position or 0.0) + 0.1
            return {"mono_readback": {"value": value, "timestamp": 0.0}}

        def describe(self) -> Any:
            return {"mono_readback": {"source": "test", "dtype": "number", "shape": []}}

    mono, documents = Mono(name="mono", init_pos=CO_K_EDGE_EV), list[tuple[str, dict[str, Any]]]()
    run(adaptive_xanes([Chambers(mono, 0.6)], mono, element="Co"), lambda *document: documents.append(document))
    [spectrum] = [doc["data"] for name, doc in documents if name == "event" and "mu" in doc["data"]]
    energy = spectrum["energy"] - 0.1 - MONO_ERROR_EV
    assert np.abs(spectrum["mu"] - absorption(SPECTRA.cathode(energy, 0.6), energy, 0.9, 0.6)).max() < 0.05
