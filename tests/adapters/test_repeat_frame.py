"""A plan that counts longer where the agent's rule cannot decide: agent, RunEngine and control in one process."""

from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.preprocessors import run_decorator
from ophyd import SoftPositioner
from spectrometer import Spectrometer

from xas_agent import XASAgent
from xas_agent.adapters.runengine import RunEngineControl

NOISE = 0.02


def measured(above: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[float]]:
    """Measure a frame, and again as often as the rule asks: frames, decisions and the factors asked for."""
    level = {"kind": "threshold", "quantity": "OS", "above": above, "uncertainty": "frame"}
    rule = {"name": "longer", "trigger": {"kind": "undecided", "of": level}, "action": "repeat_frame", "max_times": 3}
    config = {
        "model": {"use": ["co-k"]},
        "rules": [rule],
        "control": {"enabled": True, "allow": ["repeat_frame"]},
    }
    RE, frames, decisions, asked = RunEngine({}), list[dict[str, Any]](), list[dict[str, Any]](), list[float]()
    waiting: list[float] = []
    control = RunEngineControl(RE, repeat=lambda wanted: waiting.append(wanted.count_factor))
    agent = XASAgent.from_config(config, control=control)

    def keep(name: str, doc: dict[str, Any]) -> None:
        if name == "event" and "OS" in doc["data"]:
            frames.append(doc["data"])
        elif name == "event" and doc["data"].get("status") == "acknowledged":
            decisions.append(doc["data"])

    @run_decorator(md={"element": "Co"})
    def plan() -> Any:
        device, counted = Spectrometer(SoftPositioner(name="place", init_pos=8)), 1.0
        while True:
            device.noise = NOISE / np.sqrt(counted)
            yield from bps.trigger_and_read([device])
            assert agent.wait(60)
            if not waiting:
                return
            asked.append(waiting.pop())
            counted *= asked[-1]

    agent.subscribe(keep)
    RE.subscribe(agent)
    try:
        RE(plan())
    finally:
        agent.close()
    return frames, decisions, asked


def test_a_frame_is_counted_longer_until_the_level_is_decided():
    [first], _, _ = measured(above=10.0)  # far away: decided at once
    scatter = first["OS_sd_frame"]
    frames, decisions, asked = measured(above=first["OS_mean"] + 0.7 * scatter)
    assert asked[0] == pytest.approx((1.2816 / 0.7) ** 2, abs=0.1)
    assert [decision["action"] for decision in decisions] == ["repeat_frame"] * len(asked)
    assert "is not decided against above" in decisions[0]["reason"]
    assert len(frames) == 1 + len(asked) <= 4
    # The noise of a frame is known to some 20 % only.
    assert frames[-1]["OS_sd_frame"] == pytest.approx(scatter / np.sqrt(np.prod(asked)), rel=0.4)
    last, bar = frames[-1], first["OS_mean"] + 0.7 * scatter
    assert abs(last["OS_mean"] - bar) > 1.28 * last["OS_sd_frame"]
