"""The ophyd devices of the simulated beamline; the physics is in :mod:`.optics` and :mod:`.experiments`."""

import time
from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from bluesky.protocols import Reading
from event_model import DataKey
from ophyd import Component, Device, Kind, Signal, SoftPositioner
from ophyd.sim import SynSignal
from ophyd.status import DeviceStatus

from ..agent.types import Array
from .optics import Beam
from .sample import Experiment
from .sample import Reading as SampleReading

_ENERGY_LIMITS_EV = (4000.0, 25000.0)
"""Range of the monochromator, eV."""


def _done(device: Device) -> DeviceStatus:
    """Return the status of an action that took no wall time."""
    status = DeviceStatus(device)
    status.set_finished()
    return status


class Quantity(SynSignal):
    """A soft signal with a unit in its description."""

    def __init__(self, *args: Any, units: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.units = units

    def describe(self) -> dict[str, Any]:
        description = super().describe()
        for key in description.values():
            key["units"] = self.units
            if key["dtype"] == "array":
                key["dtype_numpy"] = np.asarray(self.get()).dtype.str
        return description


class Monochromator(SoftPositioner):
    """Energy that the monochromator reports, eV; :class:`.optics.Beam` knows the true energy."""

    def __init__(self, *, name: str, init_pos: float) -> None:
        super().__init__(name=name, egu="eV", source="SIM:energy", limits=_ENERGY_LIMITS_EV, init_pos=init_pos)

    def describe(self) -> OrderedDict[str, Any]:
        description = super().describe()
        description[self.name]["shape"] = []  # ophyd returns a tuple
        return description


class IonChambers(Device):
    """I0, It and Iref at the monochromator's energy; one trigger counts at one energy."""

    I0 = Component(Quantity, units="V", kind=Kind.normal)
    It = Component(Quantity, units="V", kind=Kind.normal)
    Iref = Component(Quantity, units="V", kind=Kind.normal)

    def __init__(self, *, name: str, beam: Beam, mono: Monochromator, seconds: float) -> None:
        super().__init__(name=name)
        self._beam, self._mono, self._seconds = beam, mono, seconds
        for signal in (self.I0, self.It, self.Iref):
            signal.name = signal.attr_name

    def rest(self, points: int) -> None:
        """Let the time of ``points`` energies pass without counting."""
        self._beam.rest(points * self._seconds)

    def trigger(self) -> DeviceStatus:
        counts = self._beam.count(np.array([self._mono.position]), self._seconds)
        for signal, value in zip((self.I0, self.It, self.Iref), counts, strict=True):
            signal.put(float(value[0]))
        return _done(self)


class QuickScan(Device):
    """A sweep of the monochromator while the ion chambers count; one trigger measures whole spectra."""

    energy = Component(Quantity, units="eV", kind=Kind.normal)
    I0 = Component(Quantity, units="V", kind=Kind.normal)
    It = Component(Quantity, units="V", kind=Kind.normal)
    Iref = Component(Quantity, units="V", kind=Kind.normal)

    def __init__(self, *, name: str, beam: Beam, energies: Array, seconds: float) -> None:
        super().__init__(name=name)
        self._beam, self._energies, self._seconds = beam, energies, seconds
        for signal in (self.energy, self.I0, self.It, self.Iref):
            signal.name = signal.attr_name

    def trigger(self) -> DeviceStatus:
        counts = self._beam.count(self._energies, self._seconds)
        self.energy.put(self._energies.copy())
        for signal, value in zip((self.I0, self.It, self.Iref), counts, strict=True):
            signal.put(value)
        return _done(self)


class Drive(Device):
    """The driving force of the sample, such as the current of a cell: 1 is on; 0 is off before ``set`` returns."""

    state = Component(Signal, value=0)

    def __init__(self, *, name: str, experiment: Experiment) -> None:
        super().__init__(name=name)
        self._experiment = experiment

    def set(self, value: int) -> DeviceStatus:
        self.state.put(value)
        self._experiment.drive(bool(value))
        return _done(self)


class CountTime(Device):
    """Counting time of the next frame, as a multiple of the planned one."""

    factor = Component(Signal, value=1.0)

    def __init__(self, *, name: str, beam: Beam) -> None:
        super().__init__(name=name)
        self._beam = beam

    def set(self, value: float) -> DeviceStatus:
        self.factor.put(value)
        self._beam.count_factor = value
        return _done(self)


class Shutter(Device):
    """Photon shutter: 1 is open, 0 is closed."""

    state = Component(Signal, value=0)

    def __init__(self, *, name: str, beam: Beam) -> None:
        super().__init__(name=name)
        self._beam = beam

    def set(self, value: int) -> DeviceStatus:
        self.state.put(value)
        self._beam.open = bool(value)
        return _done(self)


def sensor(reading: SampleReading, noise: np.random.Generator) -> Quantity:
    """Return the device that reads a quantity of the sample with its noise."""
    device = Quantity(name=reading.name, units=reading.units, precision=reading.precision)
    device.sim_set_func(lambda: reading.value() + float(noise.normal(0, reading.sigma)))
    return device


class RecordedDevice:
    """A readable device with a given description that returns the values of the last ``put``.

    Parameters
    ----------
    name : str
        Name of the device.
    data_keys : mapping
        Result of ``describe``, by field name.
    configuration : mapping, optional
        The device's ``configuration`` in an EventDescriptor: ``data``, ``timestamps``, ``data_keys``.
    """

    parent = None

    def __init__(
        self, name: str, data_keys: Mapping[str, Any], configuration: Mapping[str, Any] | None = None
    ) -> None:
        self.name = name
        self._data_keys = deepcopy(dict(data_keys))
        self._configuration = configuration or {}
        self._readings: dict[str, Reading] = {}

    def put(self, data: Mapping[str, Any], timestamps: Mapping[str, float] | None = None) -> None:
        """Store the device's own fields from ``data``; timestamps (Unix s) default to the current time."""
        now = time.time()
        self._readings = {
            key: {"value": data[key], "timestamp": (timestamps or {}).get(key, now)} for key in self._data_keys
        }

    def read(self) -> dict[str, Reading]:
        return self._readings

    def describe(self) -> dict[str, DataKey]:
        return deepcopy(self._data_keys)

    def read_configuration(self) -> dict[str, Reading]:
        data = self._configuration.get("data", {})
        timestamps = self._configuration.get("timestamps", {})
        return {k: {"value": v, "timestamp": timestamps.get(k, 0.0)} for k, v in data.items()}

    def describe_configuration(self) -> dict[str, DataKey]:
        return dict(self._configuration.get("data_keys", {}))
