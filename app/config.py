"""What a user's YAML may say, and reading it."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from ..adapters.assets import AssetSettings
from ..adapters.tiled import TiledEndpoint
from ..adapters.zmq import Endpoint, ZMQEndpoint
from ..agent.decide import ControlSettings, Rule
from ..agent.fields import FieldSettings
from ..agent.spectra import AlignmentSettings
from ..agent.stream import FlySettings
from ..agent.types import InputError, Settings

if TYPE_CHECKING:
    from ..models.training import TrainingConfig

TRAINING = Path(__file__).parents[1] / "configs" / "training"
BEAMLINES = Path(__file__).parents[1] / "configs" / "beamlines"


class ConfigError(InputError):
    """A config that cannot be used; the message names the file, the key, what was found and what was expected."""


class ModelSettings(Settings):
    """Which model answers, and on what."""

    use: tuple[str, ...] = ()
    """Names of installed models or model folders; empty: every installed model, chosen frame by frame by element
    and edge or, where the documents name none, by the energies."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the forward; unset: half the cores, at most 4. Only the command applies it: torch has one number
    of threads for the whole process, so in a host program that program's own setting holds."""


class ServingSettings(Settings):
    """How frames are queued and batched."""

    latency_budget_ms: float = Field(default=20.0, ge=0)
    """Longest time that documents are gathered into one batch. A lone frame never waits: gathering goes on only
    while more documents are already there."""
    max_batch: int = Field(default=256, ge=1)
    """Most frames in one forward."""
    queue: int = Field(default=200_000, ge=1)
    """Most documents waiting; one that finds it full is dropped, counted and reported as a gap."""
    spectra: bool = True
    """Whether the aligned spectra are published too."""
    single_site: bool = False
    """Whether descriptors that mean nothing for a mixture of sites, such as PSGO, are shown too. They are published
    in any case; what is shown are the fields that the ``descriptors`` stream hints at, and descriptors.csv."""


class Config(Settings):
    """Everything the agent can be told; each part may be left out."""

    preset: str | None = None
    """Name of a beamline whose rules these settings are laid over."""
    model: ModelSettings = ModelSettings()
    fields: FieldSettings = FieldSettings()
    fly: FlySettings | None = None
    """Which streams of a fly scan are joined to one; None: each stream has its energies, or a run has one axis."""
    assets: AssetSettings = AssetSettings()
    """The files that documents point to."""
    alignment: AlignmentSettings = AlignmentSettings()
    rules: tuple[Rule, ...] = ()
    control: ControlSettings = ControlSettings()
    control_endpoint: Endpoint | None = None
    """Where controls are sent across processes; in a RunEngine's own process they go to the RunEngine."""
    serving: ServingSettings = ServingSettings()
    source: ZMQEndpoint | None = None
    """Where documents come from."""
    tiled: TiledEndpoint | None = None
    """The catalogue that they come from, in place of ``source``."""
    publish: ZMQEndpoint | None = None
    """Where the agent's own documents go."""
    x_target: float | None = None
    """Li content at which the embedded beamline's charge should be stopped; the rules say how it is recognised."""

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
        return _checked(content, where) if content else Config()
    if preset not in presets():
        raise ConfigError(f"{where}: found preset {preset!r}, expected one of {', '.join(presets())}")
    beneath = yaml.safe_load((BEAMLINES / f"{preset}.yaml").read_text(encoding="utf-8"))
    return _checked(_over(beneath, content) | {"preset": preset}, where)


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
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(e).split())}") from None
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{path}: found {type(content).__name__}, expected a mapping of keys to values")
    return content or {}, str(path)


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


def _checked(content: dict[str, Any], where: str) -> Config:
    try:
        return Config.model_validate(content)
    except ValidationError as e:
        raise ConfigError(explain(e, where, Config)) from None


def explain(error: ValidationError, where: str, model: type[Settings]) -> str:
    """One line for the first error: file, key, what was found and what was expected."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    key = key if key.isprintable() else repr(key)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = ", ".join(_known_keys(model, first["loc"]))
        return f"{where}: unknown key {key}{more}; expected one of {known}"
    found = f"found {first['input']!r:.80}, " if first["type"] != "missing" else ""
    expected = (
        first["msg"].removeprefix("Value error, ").replace("Input should be a valid tuple", "a list, e.g. [co-k]")
    )
    if not key:  # keys that do not go together: the message names them
        return f"{where}: {expected}{more}"
    return f"{where}: key {key}: {found}expected: {expected}{more}"


def _known_keys(model: type[Settings], loc: tuple[int | str, ...]) -> list[str]:
    """Field names of the group in which an unknown key was found."""
    groups = [model]
    for part in loc[:-1]:
        inner = [
            g for group in groups if part in group.model_fields for g in _groups(group.model_fields[part].annotation)
        ]
        # A part that is no field is the index in a list, or the kind that one of several groups goes by.
        kind = [g for g in groups if "kind" in g.model_fields and g.model_fields["kind"].default == part]
        groups = inner or kind or groups
    return sorted({name for group in groups for name in group.model_fields})


def _groups(annotation: Any) -> list[type[Settings]]:
    """The groups of settings that an annotation allows, alone, in a tuple or in a union."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [group for part in get_args(annotation) for group in _groups(part)]


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
    try:
        config = TrainingConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as e:
        raise ConfigError(explain(e, str(path), TrainingConfig)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(e).split())}") from None
    if lacking := config.augmentation.short_of(config.domain):
        raise ConfigError(f"{path}: augmentation does not reach as far as the domain: {'; '.join(lacking)}")
    return config
