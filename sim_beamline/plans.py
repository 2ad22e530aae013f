"""Plans that measure the charging cell frame after frame, by steps of energy or by whole spectra."""

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
from .devices import Chambers, Monochromator, Potentiostat, QuickScan, Recorded, Shutter, Thermometer
from .engine import TRUTH
from .orders import Orders

Plan = Generator[Msg, Any, None]

FLY_ENERGIES: Array = CO_K_EDGE_EV + np.arange(-60.0, 110.01, 0.5)
STEP_ENERGIES: Array = CO_K_EDGE_EV + np.concatenate(
    [np.arange(-60, -20, 5.0), np.arange(-20, 35, 0.6), np.arange(35, 60, 1.0), np.arange(60, 110.1, 2.0)]
)
"""Coarse before the edge, 0.6 eV across it, coarser behind."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The devices that the plans move and read."""

    mono: Monochromator
    chambers: Chambers
    quick_scan: QuickScan
    potentiostat: Potentiostat
    thermometer: Thermometer
    shutter: Shutter
    truth: Recorded
    mark_truth: Callable[[int, float, bool], None]
    """(frame, x, stopped): puts into ``truth`` what is true now."""


def fly_frame(bench: Bench, _: int) -> Plan:
    """Plan: one Event with arrays."""
    devices: Any = [bench.quick_scan, bench.potentiostat.voltage, bench.thermometer]  # ophyd has no types
    yield from bps.trigger_and_read(devices)


def step_frame(bench: Bench, frame: int, *, both_ways: bool = False) -> Plan:
    """Plan: an Event per energy; with ``both_ways`` every second sweep falls."""
    energies = STEP_ENERGIES[::-1] if both_ways and frame % 2 == 0 else STEP_ENERGIES
    devices: Any = [bench.mono, bench.chambers, bench.potentiostat.voltage, bench.thermometer]
    for energy in energies:
        yield from bps.checkpoint()
        yield from bps.mv(bench.mono, float(energy))
        yield from bps.trigger_and_read(devices)


def measure(
    bench: Bench,
    frame_plan: Callable[[Bench, int], Plan],
    orders: Orders,
    *,
    frames: int,
    period_s: float,
    current_ma: float,
    md: Mapping[str, Any],
    truth_md: Mapping[str, Any],
) -> Plan:
    """Plan: charge with ``current_ma`` and measure ``frames`` spectra as one run, ``period_s`` apart.

    Between frames it looks at ``orders``. Beside the measurement a second run records the truth: an Event per
    frame with the mean x of that frame, and a last one with x as it was left and whether it was stopped.
    """
    uid = yield from bps.open_run({"frames_planned": frames, **md})
    yield from set_run_key_wrapper(bps.open_run({"purpose": TRUTH, "measured_run": uid, **truth_md}), TRUTH)
    yield from bps.mv(bench.shutter, 1)
    if not orders.stopped:
        yield from bps.mv(bench.potentiostat.current, current_ma)
    measured = 0
    yield from orders.hold()
    while measured < frames and not orders.stopped:
        began, x_before = time.monotonic(), bench.potentiostat.cell.x
        yield from bps.checkpoint()
        measured += 1
        yield from frame_plan(bench, measured)
        bench.mark_truth(measured, (x_before + bench.potentiostat.cell.x) / 2, False)
        yield from _record_truth(bench)
        yield from orders.hold(began + period_s)
    orders.end()
    yield from bps.mv(bench.potentiostat.current, 0.0)
    yield from bps.mv(bench.shutter, 0)
    bench.mark_truth(measured, bench.potentiostat.cell.x, orders.stopped)
    yield from _record_truth(bench)
    yield from bps.close_run(exit_status="success", reason=orders.reason)
    yield from set_run_key_wrapper(bps.close_run(exit_status="success", reason=orders.reason), TRUTH)


def _record_truth(bench: Bench) -> Plan:
    yield from set_run_key_wrapper(bps.trigger_and_read([bench.truth], name=TRUTH), TRUTH)
