"""Plans that measure the charging cell frame by frame, as step scans or as whole spectra."""

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
from bluesky.preprocessors import set_run_key_wrapper
from bluesky.utils import Msg

from ..agent.types import Array
from .cathode import CO_K_EDGE_EV
from .devices import IonChambers, Monochromator, Potentiostat, QuickScan, RecordedDevice, Shutter, Thermometer
from .engine import TRUTH
from .plan_state import PlanState

Plan = Generator[Msg, Any, None]

FLY_ENERGIES_EV: Array = CO_K_EDGE_EV + np.arange(-60.0, 110.01, 0.5)
"""Energies of a fly scan, eV."""
STEP_ENERGIES_EV: Array = CO_K_EDGE_EV + np.concatenate(
    [np.arange(-60, -20, 5.0), np.arange(-20, 35, 0.6), np.arange(35, 60, 1.0), np.arange(60, 110.1, 2.0)]
)
"""Energies of a step scan, eV: 0.6 eV apart across the edge, farther apart below and above it."""


@dataclass(frozen=True, slots=True)
class BeamlineDevices:
    """Devices that the plans move and read."""

    mono: Monochromator
    chambers: IonChambers
    quick_scan: QuickScan
    potentiostat: Potentiostat
    thermometer: Thermometer
    shutter: Shutter
    truth: RecordedDevice
    mark_truth: Callable[[int, float, bool], None]
    """(frame, x, stopped): puts the current true values into ``truth``."""


def fly_frame(devices: BeamlineDevices, _: int) -> Plan:
    """Plan: measure one Event with arrays."""
    readables: Any = [devices.quick_scan, devices.potentiostat.voltage, devices.thermometer]  # ophyd has no types
    yield from bps.trigger_and_read(readables)


def step_frame(devices: BeamlineDevices, frame: int, *, both_ways: bool = False) -> Plan:
    """Plan: measure one Event per energy; with ``both_ways`` every second sweep falls in energy."""
    energies = STEP_ENERGIES_EV[::-1] if both_ways and frame % 2 == 0 else STEP_ENERGIES_EV
    readables: Any = [devices.mono, devices.chambers, devices.potentiostat.voltage, devices.thermometer]
    for energy in energies:
        yield from bps.checkpoint()
        yield from bps.mv(devices.mono, float(energy))
        yield from bps.trigger_and_read(readables)


def measure(
    devices: BeamlineDevices,
    frame_plan: Callable[[BeamlineDevices, int], Plan],
    plan_state: PlanState,
    *,
    frames: int,
    period_s: float,
    current_ma: float,
    md: Mapping[str, Any],
    truth_md: Mapping[str, Any],
) -> Plan:
    """Plan: charge with ``current_ma`` and measure ``frames`` spectra as one run, ``period_s`` apart.

    The plan checks ``plan_state`` between frames. A second run records the true values: one Event per frame with the
    mean x of that frame, and a last Event with the final x and whether a stop was requested.
    """
    uid = yield from bps.open_run({"frames_planned": frames, **md})
    yield from set_run_key_wrapper(bps.open_run({"purpose": TRUTH, "measured_run": uid, **truth_md}), TRUTH)
    yield from bps.mv(devices.shutter, 1)
    if not plan_state.stopped:
        yield from bps.mv(devices.potentiostat.current, current_ma)
    measured = 0
    yield from plan_state.hold()
    while measured < frames and not plan_state.stopped:
        start_s, x_before = time.monotonic(), devices.potentiostat.cell.x
        yield from bps.checkpoint()
        measured += 1
        yield from frame_plan(devices, measured)
        devices.mark_truth(measured, (x_before + devices.potentiostat.cell.x) / 2, False)
        yield from _record_truth(devices)
        yield from plan_state.hold(start_s + period_s)
    plan_state.end()
    yield from bps.mv(devices.potentiostat.current, 0.0)
    yield from bps.mv(devices.shutter, 0)
    devices.mark_truth(measured, devices.potentiostat.cell.x, plan_state.stopped)
    yield from _record_truth(devices)
    yield from bps.close_run(exit_status="success", reason=plan_state.reason)
    yield from set_run_key_wrapper(bps.close_run(exit_status="success", reason=plan_state.reason), TRUTH)


def _record_truth(devices: BeamlineDevices) -> Plan:
    yield from set_run_key_wrapper(bps.trigger_and_read([devices.truth], name=TRUTH), TRUTH)
