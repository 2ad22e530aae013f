"""What the closed loop gains over the open loop in the stories that ship with the package.

    python benchmarks/stories.py [--seeds 5] [STORY ...]

Each story has the beamline, agent, model, rules and requests of ``xas-agent run --config stories/NAME``. Here they
share a process, and the beamline waits after each frame until the agent has answered and its requests are carried
out, so that the load of the machine plays no part. What a session says of both loops is printed per story and seed,
and the gains of all seeds per story.
"""

import argparse
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import xas_agent
from xas_agent import XASAgent, load_config
from xas_agent.adapters.robot import RobotServer, RobotSettings
from xas_agent.agent.types import Reply
from xas_agent.app.config import Config
from xas_agent.app.embedded import gain, open_loop
from xas_agent.app.output.recorder import Recorder
from xas_agent.app.output.truth import Truth
from xas_agent.sim_beamline.beamline import ChangingBeamline, SimBeamline
from xas_agent.sim_beamline.sample_changer import SampleChanger, magazine
from xas_agent.sim_beamline.settings import BeamlineSettings

STORIES = sorted(path.stem for path in (Path(xas_agent.__file__).parent / "configs" / "stories").glob("*.yaml"))
_POLL_S = 0.02
"""Interval at which the beamline looks whether the agent has answered, s."""


class Lockstep:
    """A beamline in this process that waits for the agent after each document; it is the agent's control, too."""

    actions = ("notify",)

    def __init__(self, simulation: BeamlineSettings, changer: SampleChanger | None, truth: Truth) -> None:
        settings = simulation.model_copy(update={"frame_period_s": 0.0})
        self.agent: XASAgent | None = None
        self._stopping = False
        if changer is None:
            self._beamline = SimBeamline(settings, [self._show], [truth])
        else:
            self._beamline = ChangingBeamline(settings, changer, [self._show], [truth])

    def run(self, agent: XASAgent) -> None:
        """Measure; blocks."""
        self.agent = agent
        self._beamline.run()

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Carry out a request of the agent."""
        reply = self._beamline.obey(action, args)
        self._stopping = self._stopping or action == "stop"
        return reply

    def close(self) -> None:
        """Do nothing."""

    def _show(self, name: str, doc: dict[str, Any]) -> None:
        assert self.agent is not None
        self.agent(name, doc)
        if name == "start":
            self._stopping = False
        # A robot that unloads waits for the end of a measurement that stops.
        while name == "event" and not self.agent.wait(_POLL_S) and not self._stopping:
            pass


def gain_of(story: str, seed: int) -> dict[str, Any]:
    """Run both loops of a story; return what a session says of the gain."""
    config = load_config(f"stories/{story}")
    assert config.simulation is not None
    simulation = config.simulation.model_copy(update={"seed": seed})
    truth, recorder = Truth(), Recorder()
    with ExitStack() as resources:
        settings, changer = config.simulated(), None
        if simulation.experiment.places:
            changer = SampleChanger(magazine(simulation.experiment.places), 0.0)
            folder = resources.enter_context(TemporaryDirectory())
            robot = resources.enter_context(closing(RobotServer(f"ipc://{folder}/robot", changer)))
            settings = _with_robot(settings, robot.address)
        beamline = Lockstep(simulation, changer, truth)
        agent = resources.enter_context(XASAgent.from_config(settings, control=beamline))
        agent.subscribe(recorder)
        beamline.run(agent)
        agent.wait()
        return gain(simulation, open_loop(simulation), truth, recorder)


def _with_robot(config: Config, address: str) -> Config:
    return config.model_copy(update={"robot": RobotSettings(address=address)})


def main() -> None:
    """Print the gains of the stories that the command line names, by default of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stories", nargs="*", metavar="STORY", default=[])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    for story in options.stories or STORIES:
        amounts: list[float] = []
        for seed in range(options.seeds):
            found = gain_of(story, seed)
            amounts.append(found["amount"])
            for loop in ("open loop", "closed loop", "gained"):
                print(f"{story} {seed} {loop:11} {found[loop]}", flush=True)
        print(f"{story}: gains {', '.join(f'{amount:.3g}' for amount in amounts)}\n", flush=True)


if __name__ == "__main__":
    main()
