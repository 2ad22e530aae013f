"""What a user's YAML may say, and reading it."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..adapters.assets import AssetSettings
from ..adapters.tiled import TiledEndpoint
from ..adapters.zmq import Endpoint, ZMQEndpoint
from ..agent.decide import ControlSettings, Rule
from ..agent.fields import FieldSettings
from ..agent.spectra import AlignmentSettings
from ..agent.stream import FlySettings
from ..agent.types import ConfigError, Settings, read_mapping, read_yaml, validated

if TYPE_CHECKING:
    from ..models.training import TrainingConfig

TRAINING = Path(__file__).parents[1] / "configs" / "training"
BEAMLINES = Path(__file__).parents[1] / "configs" / "beamlines"


class ModelSettings(Settings):
    """Which model answers, and on what."""

    use: tuple[str, ...] = ()
    """Names of installed models, or model folders. Empty: every installed model; the element and edge of a frame
    choose among them or, if the documents do not name these, its energies do."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; ``auto`` takes a GPU if there is one."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the forward pass; unset: half the cores, at most 4. Only the command applies it: torch has one
    number of threads for the whole process, so in a host program that program's own setting holds."""


class ServingSettings(Settings):
    """How frames are queued and batched."""

    latency_budget_ms: float = Field(default=20.0, ge=0)
    """Longest time that documents are gathered into one batch, ms. A lone frame never waits: gathering continues only
    while more documents are already there."""
    max_batch: int = Field(default=256, ge=1)
    """Largest number of frames in one forward pass."""
    queue: int = Field(default=200_000, ge=1)
    """Largest number of waiting documents; a document that finds the queue full is dropped, counted and reported as a
    gap."""
    spectra: bool = True
    """Whether to publish the aligned spectra too."""
    single_site: bool = False
    """Whether to show descriptors that have no meaning for a mixture of sites, such as PSGO. They are always
    published; this adds them to the hints of the ``descriptors`` stream and to descriptors.csv."""


class Config(Settings):
    """Settings of the agent; each part may be left out."""

    preset: str | None = None
    """Name of a beamline preset; these settings override its keys."""
    model: ModelSettings = ModelSettings()
    """Which model answers, and where it runs."""
    fields: FieldSettings = FieldSettings()
    """Which data keys hold the energy and the intensities."""
    fly: FlySettings | None = None
    """Streams of a fly scan that are joined to one; unset: each stream has its own energies, or the run has one
    axis."""
    assets: AssetSettings = AssetSettings()
    """Files to which documents point."""
    alignment: AlignmentSettings = AlignmentSettings()
    """Calibration, normalisation and resampling."""
    rules: tuple[Rule, ...] = ()
    """Rules over the series of estimates."""
    control: ControlSettings = ControlSettings()
    """Actions that the agent may take."""
    control_endpoint: Endpoint | None = None
    """ZMQ endpoint that receives control requests from another process; within a RunEngine's own process they go to
    the RunEngine."""
    serving: ServingSettings = ServingSettings()
    """Queue, batches and what is published."""
    source: ZMQEndpoint | None = None
    """ZMQ endpoint that documents come from."""
    tiled: TiledEndpoint | None = None
    """Tiled catalogue that documents come from, in place of ``source``."""
    publish: ZMQEndpoint | None = None
    """ZMQ endpoint that the agent's own documents go to."""
    x_target: float | None = None
    """Li content at which the embedded beamline's charge should stop, for the summary; the rules decide when it is
    reached."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.source is not None and self.tiled is not None:
            raise ValueError("source or tiled, not both")
        return self

    @field_validator("rules")
    @classmethod
    def _names_are_unique(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        if repeated := [name for name, times in Counter(r.name for r in rules).items() if times > 1]:
            raise ValueError(f"names that differ; two rules are named {repeated[0]!r}")
        return rules

    @property
    def sha256(self) -> str:
        """Of the settings' canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_config(source: str | Path | Mapping[str, Any] | None = None, preset: str | None = None) -> Config:
    """Read a YAML file, the name of a shipped config, or a mapping; None gives the defaults.

    A ``preset``, named here or in the config, lies under it.

    Raises
    ------
    ConfigError
        No such file or preset, not YAML, or a key or value that the agent does not know.
    """
    content, where = _content(source)
    preset = preset or content.get("preset")
    if preset is None:
        return validated(content, Config, where) if content else Config()
    if preset not in presets():
        raise ConfigError(f"{where}: found preset {preset!r}, expected one of {', '.join(presets())}")
    beneath = read_mapping(BEAMLINES / f"{preset}.yaml")
    return validated(_over(beneath, content) | {"preset": preset}, Config, where)


def _content(source: str | Path | Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """Return what a config says, and what it goes by in messages."""
    if source is None or isinstance(source, Mapping):
        return dict(source or {}), "config"
    path = Path(source)
    shipped = Path(__file__).parents[1] / "configs" / f"{source}.yaml"
    if not path.is_file() and shipped.is_file():
        path = shipped
    if not path.is_file():
        raise ConfigError(f"{path}: no such config; expected a YAML file, or one of {', '.join(shipped_configs())}")
    return read_mapping(path), str(path)


def _over(beneath: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``content`` laid over ``beneath``, group by group."""
    merged = dict(beneath)
    for key, value in content.items():
        below = merged.get(key)
        merged[key] = _over(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def presets() -> list[str]:
    """Names of the beamlines whose rules come with the package."""
    return sorted(p.stem for p in BEAMLINES.glob("*.yaml"))


def shipped_configs() -> list[str]:
    """Names of the configs that come with the package."""
    return sorted(p.stem for p in (Path(__file__).parents[1] / "configs").glob("*.yaml"))


def shipped_training() -> list[str]:
    """Names of the training configs that come with the package."""
    return sorted(p.stem for p in TRAINING.glob("*.yaml"))


def read_training(name_or_file: str) -> "TrainingConfig":
    """A training config: a shipped one by name, or a YAML file.

    Raises
    ------
    ConfigError
        There is none, or it cannot be understood; one message.
    """
    from ..models.training import TrainingConfig

    path = TRAINING / f"{name_or_file}.yaml" if name_or_file in shipped_training() else Path(name_or_file)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; shipped training configs are {', '.join(shipped_training())}")
    config = read_yaml(path, TrainingConfig)
    if lacking := config.augmentation.gaps(config.domain):
        raise ConfigError(f"{path}: augmentation does not reach as far as the domain: {'; '.join(lacking)}")
    return config
