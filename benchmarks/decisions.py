"""Judge rules on simulated charges: when they stop, what they do on bad stretches, and whether they stop for nothing.

    python benchmarks/decisions.py [--config FILE] [--seeds 20]

Each charge of the simulated LixCoO2 cell is measured without a control and then judged by the rules, as
``xas-agent rules test`` does. A stop takes effect one frame after the decision, since the beamline finishes the frame
in progress. FILE is a config whose first rule shall stop at x = 0.50; the default is that of ``xas-agent run``.

The scenarios: as planned; with three times the noise; a charge that ends at x = 0.55 and never reaches the level; and
six frames from the 31st on of a cobalt foil, or with a smooth glitch of half the edge step, instead of the sample.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xas_agent import XASAgent
from xas_agent.agent.decide import Rule
from xas_agent.agent.publish import PublishedReader
from xas_agent.agent.types import Decision
from xas_agent.app.config import Config, load_config
from xas_agent.app.jobs.recording import Recording
from xas_agent.app.jobs.rehearse import decided
from xas_agent.app.wiring import units_of
from xas_agent.sim_beamline.beamline import SimBeamline
from xas_agent.sim_beamline.experiments import ChargeSettings
from xas_agent.sim_beamline.optics import BeamSettings
from xas_agent.sim_beamline.settings import BeamlineSettings

TARGET, BAD_FRAMES = 0.50, range(31, 37)
ALARM = Rule.model_validate({"name": "unfamiliar", "trigger": {"kind": "unfamiliar", "dwell_frames": 2}})

Data = dict[str, Any]


@dataclass(frozen=True)
class Charge:
    """A measured charge and its true lithium contents."""

    recording: Recording
    x: NDArray[np.float64]
    """(frames,) lithium content at the end of each frame."""

    def x_at_stop(self, decision: Decision) -> float:
        """Return the lithium content at which a decision stops the charge."""
        number = next(f.seq_num for f, *_ in self.recording.frames if f.uid == decision.evidence[-1][0])
        return float(self.x[min(number, len(self.x) - 1)])


def measured(config: Config, settings: BeamlineSettings, spoil: Callable[[Data], Data] | None = None) -> Charge:
    """Measure a charge without a control; ``spoil`` changes the data of ``BAD_FRAMES``."""
    read, items, x = PublishedReader(), list[Any](), list[float]()
    with XASAgent.from_config(config.model_copy(update={"rules": ()})) as agent:
        agent.live = False
        agent.subscribe(lambda name, doc: items.extend(read(name, doc)))
        count = 0

        def forward(name: str, doc: Mapping[str, Any]) -> None:
            nonlocal count
            doc = dict(doc)
            if name == "event" and "It" in doc["data"]:
                count += 1
                if spoil is not None and count in BAD_FRAMES:
                    doc["data"] = spoil(dict(doc["data"]))
            agent(name, doc)

        def true(name: str, doc: Mapping[str, Any]) -> None:
            if name == "event":
                x.append(doc["data"]["x"])

        SimBeamline(settings, [forward], [true]).run()
        agent.wait()
        units = units_of(config, agent.models)
    return Charge(Recording(items, units), np.array(x))


def foil(data: Data) -> Data:
    """Put the foil where the sample was."""
    i0, it, iref = (np.asarray(data[name], float) for name in ("I0", "It", "Iref"))
    return {**data, "It": i0 * iref / it}


def glitch(data: Data) -> Data:
    """Add a bump of half the edge step, 30 eV wide, at the white line."""
    energy, it = np.asarray(data["energy"], float), np.asarray(data["It"], float)
    return {**data, "It": it * np.exp(-0.5 * np.exp(-(((energy - 7725.0) / 15.0) ** 2)))}


def main() -> None:
    """Print what the rules do in every scenario."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="default")
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    config = load_config(options.config)
    stop, alarm = config.rules[0], ALARM
    quiet = BeamSettings()
    noisy = BeamSettings(photons_per_s=quiet.photons_per_s / 9)
    short = ChargeSettings(charge_x=0.45)
    scenarios: dict[str, tuple[dict[str, Any], Callable[[Data], Data] | None]] = {
        "as planned": ({}, None),
        "three times the noise": ({"beam": noisy}, None),
        "never at the level": ({"experiment": short}, None),
        "foil in the beam": ({}, foil),
        "glitched frames": ({}, glitch),
    }
    for name, (changed, spoil) in scenarios.items():
        errors: list[float] = []
        stops = early = alarms = false_alarms = 0
        for seed in range(options.seeds):
            settings = BeamlineSettings(seed=seed, frame_period_s=0, **changed)
            charge = measured(config, settings, spoil)
            made = decided([stop, alarm], charge.recording)
            uids = {f.uid: f.seq_num for f, *_ in charge.recording.frames}
            for decision in made:
                number = uids[decision.evidence[-1][0]]
                bad = spoil is not None and number in BAD_FRAMES
                if decision.rule == stop.name:
                    stops += 1
                    early += bad
                    errors.append(charge.x_at_stop(decision) - TARGET)
                else:
                    alarms += bad
                    false_alarms += not bad
        worst = f"largest |x - {TARGET}| {max(map(abs, errors)):.3f}, mean {np.mean(errors):+.3f}; " if errors else ""
        print(
            f"{name}: {stops} of {options.seeds} stopped, {worst}{early} on a bad frame; "
            f"alarm on a bad stretch {alarms}, elsewhere {false_alarms}",
            flush=True,
        )


if __name__ == "__main__":
    main()
