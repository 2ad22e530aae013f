"""A charge during which a metal foil is left in the beam, until the crew removes it."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ...agent.types import Array
from ..cathode import CathodeSettings
from ..sample import Answers, Course, Gain
from ..spectra import absorption
from .charge import Charge


class AlarmSettings(CathodeSettings):
    """A charging cell that has a Co foil in front of it for some frames."""

    kind: Literal["alarm"] = "alarm"
    """Name of this experiment."""
    first_frame: int = Field(default=15, ge=1)
    """First frame with the foil."""
    last_frame: int = Field(default=45, ge=1)
    """Last frame with the foil if the crew is not notified; then somebody passes by."""
    crew_frames: int = Field(default=2, ge=0)
    """Frames between the message and the removal of the foil by the crew."""
    foil_edge_step: float = Field(default=4.5, gt=0)
    """Edge step of the foil, dimensionless."""
    foil_background: float = Field(default=0.3, ge=0)
    """Background absorption of the foil at the edge, dimensionless."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last_frame < self.first_frame:
            raise ValueError(f"found last_frame {self.last_frame}, expected at least first_frame {self.first_frame}")
        return self

    def begin(self, seed: int) -> "Alarm":
        return Alarm(self, seed)

    def check_frames(self, frames: int) -> None:
        if frames < self.first_frame:
            raise ValueError(
                f"found first_frame {self.first_frame} with frames {frames}, expected it among the frames"
            )

    def gain(self, open_loop: Course, closed_loop: Course, answers: Answers) -> Gain | None:
        opened, closed = (course.count(lambda row: row["foil"]) for course in (open_loop, closed_loop))
        if not closed:  # the experiment ended before the foil was inserted
            return None
        lost = {(row["run"], row["frame"]) for row in closed_loop.frames if row["foil"]}
        uids = {row["frame_uid"] for row in answers.frames if (row["run_uid"], row["seq_num"]) in lost}
        misled = sum(
            decision["action"] != "notify" and any(uid in decision["evidence"] for uid in uids)
            for decision in answers.decisions
        )
        return Gain(
            f"{opened} of {len(open_loop.frames)} frames lost to the foil",
            f"{closed} of {len(closed_loop.frames)} frames lost; {misled} actions on the sample drawn from them",
            f"{opened - closed} frames without the foil",
            opened - closed,
            "frames without the foil",
            {"open": opened, "closed": closed, "misled": misled},
        )


class Alarm(Charge):
    """A charging cell; ``told`` sends the crew to remove the foil."""

    def __init__(self, settings: AlarmSettings, seed: int) -> None:
        super().__init__(settings, seed)
        self._foil = settings
        self._frame = 0
        self._until = settings.last_frame
        self.foil = False
        """Whether the foil is in the beam."""

    def prepare(self, frame: int) -> None:
        self._frame = frame
        self.foil = self._foil.first_frame <= frame <= self._until

    def told(self, message: Mapping[str, Any]) -> None:
        if self.foil:
            self._until = min(self._until, self._frame + self._foil.crew_frames)

    def truth(self) -> dict[str, float]:
        return {**super().truth(), "foil": self.foil}

    def absorbs(self, energy_ev: Array, x: Array) -> Array:
        mu = super().absorbs(energy_ev, x)
        if not self.foil:
            return mu
        foil = self.spectra.foil(energy_ev)
        return mu + absorption(foil, energy_ev, self._foil.foil_edge_step, self._foil.foil_background)
