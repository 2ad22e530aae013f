"""The experiments of the simulated beamline, one class each, with physics as simple as possible."""

from typing import Annotated

from pydantic import Field

from .alarm import AlarmSettings
from .charge import ChargeSettings
from .damage import DamageSettings
from .magazine import MagazineSettings
from .reduction import ReductionSettings
from .titration import TitrationSettings

ExperimentSettings = Annotated[
    ChargeSettings | ReductionSettings | MagazineSettings | TitrationSettings | DamageSettings | AlarmSettings,
    Field(discriminator="kind"),
]
"""An experiment, selected by its ``kind``."""

__all__ = [
    "AlarmSettings",
    "ChargeSettings",
    "DamageSettings",
    "ExperimentSettings",
    "MagazineSettings",
    "ReductionSettings",
    "TitrationSettings",
]
