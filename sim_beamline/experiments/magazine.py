"""A magazine of samples of different composition, which a robot exchanges."""

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..sample import Answers, Course, Experiment, Gain, SampleSettings, edge_step_of


class MagazineSettings(SampleSettings):
    """Samples of constant composition; the seed determines their places, and the frames are shared by all samples."""

    kind: Literal["magazine"] = "magazine"
    """Name of this experiment."""
    compositions: tuple[float, ...] = Field(default=(1.0, 0.9, 0.75, 0.5, 0.33, 0.17), min_length=2)
    """Lithium content x of LixCoO2 of each sample; its oxidation state is 4 − x."""
    target_x: float = Field(default=0.5, ge=0, le=1)
    """Composition to find."""
    tolerance_x: float = Field(default=0.05, gt=0)
    """Largest deviation at which a sample counts as the target."""
    change_s: float = Field(default=0.3, ge=0)
    """Wall time that the robot takes to load or unload, s; the simulated clock stands still meanwhile."""

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        found = [x for x in self.compositions if self.is_target(x)]
        if len(found) != 1:
            raise ValueError(f"found {len(found)} compositions within {self.tolerance_x:g} of target_x, expected one")
        return self

    @property
    def places(self) -> int:
        return len(self.compositions)

    @property
    def change_time_s(self) -> float:
        return self.change_s

    def is_target(self, x: float) -> bool:
        """Return whether a composition counts as the target."""
        return abs(x - self.target_x) <= self.tolerance_x

    def begin(self, seed: int) -> "Still":
        """Return the sample in the first place."""
        return self.at_place(0, seed).begin(seed)

    def at_place(self, place: int, seed: int) -> "StillSettings":
        order = np.random.default_rng([seed, 5]).permutation(len(self.compositions))
        optics = {name: getattr(self, name) for name in SampleSettings.model_fields}
        return StillSettings(**optics, x=self.compositions[order[place]], place=place + 1)

    def gain(self, open_loop: Course, closed_loop: Course, answers: Answers) -> Gain:
        opened, closed = (course.count(lambda row: self.is_target(row["x"])) for course in (open_loop, closed_loop))
        shares = {row["place"] for row in open_loop.frames}
        searched = next((n for n, row in enumerate(closed_loop.frames) if self.is_target(row["x"])), None)
        if searched is None:
            reached = f"the target was not reached in {len(closed_loop.frames)} frames"
        else:
            before = closed_loop.frames[:searched]
            minutes = sum(row["seconds"] for row in before) / 60
            reached = (
                f"the target came as sample {1 + len({row['place'] for row in before})}, after {searched} frames and "
                f"{minutes:.0f} min; {closed} of {len(closed_loop.frames)} frames on it"
            )
        return Gain(
            f"{len(open_loop.frames)} frames, equally on {len(shares)} samples; {opened} on the target",
            reached,
            f"{closed - opened} frames on the target",
            closed - opened,
            "frames on the target",
            {"open": opened, "closed": closed, "searched": -1 if searched is None else searched},
        )


class StillSettings(SampleSettings):
    """A sample of constant composition."""

    x: float
    """Lithium content."""
    place: int
    """Place in the magazine, from 1."""

    def begin(self, seed: int) -> "Still":
        return Still(self, seed)


class Still(Experiment):
    """A sample that nothing changes."""

    def __init__(self, settings: StillSettings, seed: int) -> None:
        super().__init__(settings, edge_step_of(settings, np.random.default_rng([seed, 0]).uniform))
        self._x, self._place = settings.x, settings.place

    @property
    def x(self) -> float:
        """Lithium content of the sample."""
        return self._x

    def advance(self, seconds: float) -> tuple[float, float]:
        self.time_s += seconds
        return self.x, self.x

    def truth(self) -> dict[str, float]:
        return {"place": self._place}
