"""Bluesky plans that choose the energies of a scan while it runs."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from bluesky.protocols import Readable, Reading
from bluesky.utils import Msg
from event_model import DataKey

from ..agent.fields import ADAPTIVE_POINTS
from ..agent.propose import EnergyProposer, EnergySettings
from ..agent.types import Array, edge_ev, get_logger

log = get_logger()

Plan = Generator[Msg, Any, Any]
Values = Mapping[str, float]
"""Numbers read at one point, by data key."""


def transmission(incident: str = "I0", transmitted: str = "It") -> Callable[[Values], float]:
    """Return a function that computes μ = ln(I0/It) of a point from its readings, named by their data keys."""
    return lambda values: float(np.log(_named(values, incident) / _named(values, transmitted)))


def fluorescence(incident: str = "I0", emitted: str = "If") -> Callable[[Values], float]:
    """Return a function that computes μ = If/I0 of a point from its readings, named by their data keys."""
    return lambda values: _named(values, emitted) / _named(values, incident)


class AdaptiveSpectrum:
    """The newest spectrum of an adaptive scan, as a readable device; one for all spectra of a run."""

    name, parent = "adaptive_xanes", None

    def __init__(self) -> None:
        self._columns: dict[str, Array] = {}
        self._scalars: dict[str, float] = {}

    def put(self, columns: Mapping[str, Array], scalars: Mapping[str, float]) -> None:
        """Store arrays (G,) and numbers by data key."""
        self._columns, self._scalars = dict(columns), dict(scalars)

    def read(self) -> dict[str, Reading[Any]]:
        """Return the stored values."""
        now = time.time()
        return {key: {"value": value, "timestamp": now} for key, value in {**self._columns, **self._scalars}.items()}

    def describe(self) -> dict[str, DataKey]:
        """Return the data keys of the stored values."""
        keys: dict[str, DataKey] = {key: _key("number", []) for key in self._scalars}
        for key, column in self._columns.items():
            keys[key] = {
                **_key("array", [len(column)]),
                "dtype_numpy": "<f8",
                "units": "eV" if key == "energy" else "",
            }
        return keys

    def read_configuration(self) -> dict[str, Reading[Any]]:
        """Return nothing: there is no configuration."""
        return {}

    def describe_configuration(self) -> dict[str, DataKey]:
        """Return nothing: there is no configuration."""
        return {}


def adaptive_xanes(
    detectors: Sequence[Readable[Any]],
    energy: Any,
    *,
    element: str,
    edge: str = "K",
    settings: EnergySettings | None = None,
    absorption: Callable[[Values], float] | None = None,
    foil: Callable[[Values], float] | None = None,
    describe: Callable[[Array, Array], Mapping[str, Array]] | None = None,
    num: int = 1,
    at_once: int = 1,
    md: Mapping[str, Any] | None = None,
) -> Plan:
    """Measure spectra as one run, each at the energies that are most informative.

    The points go to the stream ``adaptive_points``; each spectrum then becomes one Event of the stream ``primary``.

    Parameters
    ----------
    detectors : sequence of readables
        Devices to read at each energy.
    energy : ophyd positioner
        Monochromator, eV.
    element, edge : str
        Absorption edge, such as ``"Ni"`` and ``"K"``.
    settings : EnergySettings, optional
        Range, number of points, and errors at which a spectrum is complete.
    absorption : callable, optional
        Computes μ from the readings of a point; :func:`transmission` by default.
    foil : callable, optional
        Computes μ of a reference foil likewise. A failure of the foil costs only the foil's spectrum.
    describe : callable, optional
        As for :class:`~xas_agent.agent.propose.EnergyProposer`.
    num : int
        Number of spectra.
    at_once : int
        Number of energies that are chosen together and measured in rising order; more save motion of the
        monochromator.
    md : mapping, optional
        Metadata of the run.
    """
    names = {"detectors": [d.name for d in detectors], "motors": [energy.name]}
    about = {"plan_name": "adaptive_xanes", "element": element, "edge": edge, **names, **(md or {})}

    @bpp.stage_decorator([*detectors, energy])
    @bpp.run_decorator(md=about)
    def measure() -> Plan:
        spectrum = AdaptiveSpectrum()
        for _ in range(num):
            proposer = EnergyProposer(settings or EnergySettings(), edge_ev(element, edge), describe)
            yield from adaptive_frame(
                detectors, energy, proposer, absorption or transmission(), spectrum, foil=foil, at_once=at_once
            )

    return (yield from measure())


def adaptive_frame(
    detectors: Sequence[Readable[Any]],
    energy: Any,
    proposer: EnergyProposer,
    absorption: Callable[[Values], float],
    spectrum: AdaptiveSpectrum,
    *,
    foil: Callable[[Values], float] | None = None,
    at_once: int = 1,
) -> Plan:
    """Measure one spectrum within an open run and read it as ``spectrum``; see :func:`adaptive_xanes`.

    The energy of a point is the positioner's first hinted reading, or the requested energy if that is not finite. A
    spectrum with too few points of finite absorption is logged and not published.

    Returns
    -------
    bool
        Whether the spectrum was published.
    """
    of_foil: list[float] = []
    hinted = getattr(energy, "hints", {}).get("fields") or [energy.name]
    key_of_energy = str(hinted[0])
    while not (why := proposer.done()):
        for wanted in proposer.suggest(at_once):
            yield from bps.checkpoint()
            yield from bps.mv(energy, float(wanted))
            reading = yield from bps.trigger_and_read([*detectors, energy], name=ADAPTIVE_POINTS)
            values = {
                key: value for key, found in reading.items() if (value := _as_number(found["value"])) is not None
            }
            with np.errstate(divide="ignore", invalid="ignore"):
                mu, mu_foil = absorption(values), foil(values) if foil else np.nan
            at = _named(values, key_of_energy)
            if np.isfinite(mu):
                of_foil.append(mu_foil)
            proposer.ingest(np.array([at if np.isfinite(at) else wanted]), np.array([mu]))
    try:
        known = proposer.spectrum()
    except ValueError as error:
        log.warning("no spectrum of an adaptive scan", detail=str(error))
        return False
    columns = {"energy": known.energy, "mu": known.mu, "mu_sd": known.sd}
    if foil:
        reference = proposer.along(np.array(of_foil))
        if reference is None:
            log.warning("no spectrum of the foil of an adaptive scan", points=proposer.points)
        columns["mu_reference"] = np.full(len(known.energy), np.nan) if reference is None else reference
    log.debug("adaptive scan", why=why, error=round(known.error, 5), points=proposer.points)
    yield from bps.checkpoint()
    spectrum.put(columns, {"points_measured": proposer.points, "expected_error": known.error})
    yield from bps.trigger_and_read([spectrum])
    return True


def _named(values: Values, key: str) -> float:
    """Return a number by its data key; raise ValueError if it is missing."""
    if key not in values:
        raise ValueError(f"found no number {key!r} among the readings, expected one of: {', '.join(values)}")
    return values[key]


def _as_number(value: Any) -> np.float64 | None:
    """Return a reading as a number that may be divided by zero; None if it is not a single number."""
    array = np.asarray(value)
    return np.float64(array.item()) if array.size == 1 and array.dtype.kind in "fiub" else None


def _key(dtype: Literal["number", "array"], shape: list[int]) -> DataKey:
    return DataKey(source="xas-agent:adaptive", dtype=dtype, shape=list[int | None](shape))
