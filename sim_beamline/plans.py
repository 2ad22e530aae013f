"""Plans that measure a sample frame by frame, as step scans or as whole spectra."""

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
from bluesky.preprocessors import set_run_key_wrapper
from bluesky.utils import Msg

from ..agent.types import Array, edge_ev
from .devices import CountTime, Drive, IonChambers, Monochromator, Quantity, QuickScan, RecordedDevice, Shutter
from .engine import TRUTH
from .plan_state import PlanState
from .sample import Experiment

Plan = Generator[Msg, Any, None]

FLY_ENERGIES_EV: Array = edge_ev("Co") + np.arange(-60.0, 110.01, 0.5)
"""Energies of a fly scan, eV."""
STEP_ENERGIES_EV: Array = edge_ev("Co") + np.concatenate(
    [np.arange(-60, -20, 5.0), np.arange(-20, 35, 0.6), np.arange(35, 60, 1.0), np.arange(60, 110.1, 2.0)]
)
"""Energies of a step scan, eV: 0.6 eV apart across the edge, farther apart below and above it."""


@dataclass(frozen=True, slots=True)
class BeamlineDevices:
    """Devices that the plans move and read."""

    mono: Monochromator
    chambers: IonChambers
    quick_scan: QuickScan
    sensors: tuple[Quantity, ...]
    drive: Drive
    count_time: CountTime
    shutter: Shutter
    truth: RecordedDevice
    mark_truth: Callable[[int, float, float, Mapping[str, float]], None]
    """Puts true values into ``truth``, given frame, x, seconds and other values."""


def fly_frame(devices: BeamlineDevices, _: int) -> Plan:
    """Plan: measure one Event with arrays."""
    readables: Any = [devices.quick_scan, *devices.sensors]  # ophyd has no types
    yield from bps.trigger_and_read(readables)


def step_frame(devices: BeamlineDevices, frame: int, *, both_ways: bool = False) -> Plan:
    """Plan: measure one Event per energy; with ``both_ways`` every second sweep falls in energy."""
    energies = STEP_ENERGIES_EV[::-1] if both_ways and frame % 2 == 0 else STEP_ENERGIES_EV
    readables: Any = [devices.mono, devices.chambers, *devices.sensors]
    for energy in energies:
        yield from bps.checkpoint()
        yield from bps.mv(devices.mono, float(energy))
        yield from bps.trigger_and_read(readables)


def measure(
    devices: BeamlineDevices,
    experiment: Experiment,
    frame_plan: Callable[[BeamlineDevices, int], Plan],
    plan_state: PlanState,
    *,
    frames: int,
    period_s: float,
    md: Mapping[str, Any],
    truth_md: Mapping[str, Any],
) -> Plan:
    """Plan: drive the experiment and measure ``frames`` spectra as one run, ``period_s`` apart.

    The plan checks ``plan_state`` between frames. On request it measures a frame again, in addition to the planned
    ones, while the drive is off. A second run records the true values: one Event per frame with the mean x of that
    frame, and a last Event with the final x and whether a stop was requested.
    """
    uid = yield from bps.open_run({"frames_planned": frames, **md})
    yield from set_run_key_wrapper(bps.open_run({"purpose": TRUTH, "measured_run": uid, **truth_md}), TRUTH)
    yield from bps.mv(devices.shutter, 1)
    if not plan_state.stopped:
        yield from bps.mv(devices.drive, 1)
    measured, planned, counted = 0, 0, 1.0
    yield from plan_state.hold()
    factor = plan_state.begin_frame(uid)
    while (planned < frames or factor is not None) and not plan_state.stopped:
        start_s = time.monotonic()
        yield from bps.checkpoint()
        measured += 1
        if factor is None:
            planned, counted = planned + 1, 1.0
            experiment.prepare(planned)
        experiment.begin_frame()
        began_s = experiment.time_s
        if factor is None:
            yield from frame_plan(devices, measured)
        else:
            counted *= factor
            yield from _repeat(devices, frame_plan(devices, measured), counted, plan_state)
        seconds = experiment.time_s - began_s
        devices.mark_truth(measured, experiment.frame_x, seconds, experiment.seen)
        yield from _record_truth(devices)
        yield from plan_state.hold(start_s + period_s)
        factor = plan_state.begin_frame(uid)
    plan_state.end()
    yield from bps.mv(devices.drive, 0)
    yield from bps.mv(devices.shutter, 0)
    devices.mark_truth(measured, experiment.x, 0.0, {**experiment.truth(), "stopped": plan_state.stopped})
    yield from _record_truth(devices)
    yield from bps.close_run(exit_status="success", reason=plan_state.reason)
    yield from set_run_key_wrapper(bps.close_run(exit_status="success", reason=plan_state.reason), TRUTH)


def _repeat(devices: BeamlineDevices, frame: Plan, counted: float, plan_state: PlanState) -> Plan:
    """Plan: measure the present state again, counting ``counted`` times as long as planned."""
    plan_state.drive(False)
    yield from bps.mv(devices.count_time, counted)
    yield from frame
    yield from bps.mv(devices.count_time, 1.0)
    plan_state.drive(True)


def _record_truth(devices: BeamlineDevices) -> Plan:
    yield from set_run_key_wrapper(bps.trigger_and_read([devices.truth], name=TRUTH), TRUTH)
