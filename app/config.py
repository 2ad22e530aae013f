"""The settings of the agent as pydantic models, read from YAML."""

import hashlib
import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..adapters.assets import AssetSettings
from ..adapters.health_settings import HealthSettings
from ..adapters.kafka import KafkaDestination, KafkaShared
from ..adapters.nats import NATSDestination, NATSShared
from ..adapters.notify import Destination
from ..adapters.queueserver import QueueServerSettings
from ..adapters.robot import RobotSettings, check_args
from ..adapters.tiled import TiledDestination, TiledEndpoint
from ..adapters.zmq import ControlEndpoint, ZMQEndpoint, cause_of
from ..agent.decide import ControlSettings, Rule, check_names
from ..agent.fields import FieldSettings, SeriesSettings
from ..agent.publish import Pages
from ..agent.relative import Anchors, RelativeSettings
from ..agent.spectra import AlignmentSettings
from ..agent.stream import FlySettings
from ..agent.types import (
    ROBOT_ACTIONS,
    ConfigError,
    Settings,
    check_action_args,
    get_logger,
    read_mapping,
    read_yaml,
    validate_settings,
)
from ..models.engines import EngineName
from ..sim_beamline.settings import BeamlineSettings
from .journal import JournalSettings

if TYPE_CHECKING:
    from ..models.training import TrainingConfig

_log = get_logger()

_TRAINING = Path(__file__).parents[1] / "configs" / "training"
_BEAMLINES = Path(__file__).parents[1] / "configs" / "beamlines"


class ModelSettings(Settings):
    """The models, and the hardware that runs them."""

    use: tuple[str, ...] = ()
    """Names of installed models, or model folders. Empty: all installed models; the element and edge of a frame
    choose among them or, if the documents do not name these, its energies do."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device that runs the model; ``auto`` selects a GPU if there is one."""
    engine: EngineName = "torchscript"
    """Library that runs the network: TorchScript; ONNX Runtime (extra ``onnx``), which answers single frames faster
    on a CPU, does not import torch, and needs model folders with the ``model.onnx`` that ``xas-agent models export``
    adds; or TorchScript in CUDA graphs (``cuda-graphs``), which needs a GPU and has not run on one yet."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the network; unset: half the cores, at most 4. For TorchScript only the command applies it:
    torch has one number of threads per process, so that in a host program that program's own setting holds."""


class ServingSettings(Settings):
    """Queues and batches of frames."""

    latency_budget_ms: float = Field(default=20.0, ge=0)
    """Longest time over which documents are gathered into one batch, ms. Gathering ends when no document waits, so
    that a single frame is never delayed."""
    max_batch: int = Field(default=256, ge=1)
    """Largest number of frames in one pass of the network."""
    queue: int = Field(default=200_000, ge=1)
    """Largest number of waiting documents. The agent drops an Event that finds the queue full, counts it and reports
    it as a gap. A start, descriptor or stop still finds room in a queue of up to twice the size."""
    queue_mb: float = Field(default=512.0, gt=0)
    """Largest size of the waiting documents, MB; the queue is full when either limit is reached."""
    max_latency_s: float | None = Field(default=2.0, gt=0)
    """Latency that the frames of a live source keep under overload, s. If the waiting frames would take longer, the
    agent first reuses the energy uncertainty of earlier frames, then answers only every n-th frame and counts the
    others. ``null``: every frame is answered, however late, as always for files, Tiled and replays."""
    subscriber_queue: int = Field(default=20_000, ge=1)
    """Largest number of the agent's documents that wait for one subscriber; a slower subscriber loses Events, which
    are counted and logged."""
    subscriber_queue_mb: float = Field(default=128.0, gt=0)
    """Largest size of these documents, MB."""
    spectra: bool = True
    """Whether to publish the aligned spectra too."""
    measured: bool = True
    """Whether to publish the spectra as measured too, with the curves that normalise them, for the dashboard. A Tiled
    catalogue does not receive them: it holds them in the beamline's own runs."""
    pages: Pages = "auto"
    """Whether the Events of frames that are served together go to ZMQ as one EventPage per stream: ``auto`` if they
    arrive faster than 50 per second, as those of an EventPage do. Files, tables, other brokers and subscribers in the
    same process always receive Events."""
    precision: Literal["exact", "fast"] = "exact"
    """Arithmetic on a GPU: ``fast`` allows TF32, which rounds factors to 10 bits and changes estimates by up to about
    1e-3. On the CPU both are the same. Commands that calibrate or judge (``standards``, ``rules test``, ``evaluate``,
    ``train``) are always exact, and so is a host program that does not configure torch itself."""
    single_site: bool = False
    """Whether to show descriptors that have no meaning for a mixture of sites, such as PSGO, and those that the model
    hardly knows (R² below 0.25 in its card, as for NNRS of Co). They are always published; this setting adds them to
    the hints of the ``descriptors`` stream and to descriptors.csv."""


class PublishSettings(ZMQEndpoint):
    """Destinations of the agent's documents: a ZMQ endpoint, a Tiled catalogue, a broker, or several of them."""

    address: str = ""
    """``zmq://HOST:PORT`` of the in-port of a bluesky proxy; unset: no ZMQ. The other keys of this group belong to
    this endpoint."""
    tiled: TiledDestination | None = None
    """Catalogue that receives the agent's runs; its URI alone is enough."""
    nats: NATSDestination | None = None
    """JetStream stream; its address alone is enough."""
    kafka: KafkaDestination | None = None
    """Kafka topic; its address alone is enough."""

    @field_validator("nats", mode="before", json_schema_input_type=str | NATSDestination | None)
    @classmethod
    def _nats_address_alone(cls, value: Any) -> Any:
        return {"address": value} if isinstance(value, str) else value

    @field_validator("kafka", mode="before", json_schema_input_type=str | KafkaDestination | None)
    @classmethod
    def _kafka_address_alone(cls, value: Any) -> Any:
        return {"address": value} if isinstance(value, str) else value

    @field_validator("tiled", mode="before", json_schema_input_type=str | TiledDestination | None)
    @classmethod
    def _uri_alone(cls, value: Any) -> Any:
        return {"uri": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_a_destination(self) -> Self:
        if not self.address and self.tiled is None and self.nats is None and self.kafka is None:
            raise ValueError("address, tiled, nats or kafka")
        return self


class Config(Settings):
    """Settings of the agent; each part may be left out."""

    preset: str | None = None
    """Name of a beamline preset; these settings override its keys."""
    model: ModelSettings = ModelSettings()
    """Models, and the hardware on which they run."""
    fields: FieldSettings = FieldSettings()
    """Data keys of energy and intensities."""
    series: SeriesSettings = SeriesSettings()
    """How runs are assigned to series, for rules, alignment and figures."""
    fly: FlySettings | None = None
    """Streams of a fly scan to join into one; unset: each stream has its own energies, or the run has one axis."""
    assets: AssetSettings = AssetSettings()
    """External files of documents."""
    alignment: AlignmentSettings = AlignmentSettings()
    """Calibration, normalisation and resampling."""
    anchors: Anchors = ()
    """Known states of the sample, to which the values of each series are referred, as in ``OS_anchored``.
    ``xas_anchors`` in a RunStart replaces them for its series."""
    relative: RelativeSettings = RelativeSettings()
    """Changes, rates and positions along a series."""
    rules: tuple[Rule, ...] = ()
    """Rules on the series of estimates."""
    control: ControlSettings = ControlSettings()
    """Actions that the agent may take."""
    control_endpoint: ControlEndpoint | None = None
    """ZMQ endpoint of another process that receives control requests; inside the process of a RunEngine, the
    RunEngine receives them."""
    robot: RobotSettings | None = None
    """ZMQ endpoint of a robot that receives the actions ``load``, ``unload``, ``dose`` and ``heat``."""
    notify: tuple[Destination, ...] = ()
    """Destinations that receive the decisions with the action ``notify``; none: they are only logged and
    published."""
    queue_server: QueueServerSettings | None = None
    """bluesky-queueserver whose RE Manager carries out the decisions; it replaces ``control_endpoint``."""
    serving: ServingSettings = ServingSettings()
    """Queue, batches and published data."""
    journal: JournalSettings = JournalSettings()
    """The journal in the output folder, with which a killed session continues."""
    source: ZMQEndpoint | None = None
    """ZMQ endpoint that supplies the documents."""
    tiled: TiledEndpoint | None = None
    """Tiled catalogue that supplies the documents or, beside ``source``, only those that ``source`` lost."""
    nats: NATSShared | None = None
    """NATS stream that supplies the documents."""
    kafka: KafkaShared | None = None
    """Kafka topic that supplies the documents."""
    publish: PublishSettings | None = None
    """Destinations of the agent's documents."""
    health: HealthSettings | None = None
    """HTTP endpoint that reports the agent's health; its address alone is enough."""
    simulation: BeamlineSettings | None = None
    """Settings of the embedded beamline that ``run`` simulates without a source. At the end, the session compares the
    closed loop with the same experiment without requests. Unset: the charge of a LixCoO2 cathode."""
    x_target: float | None = None
    """Lithium content x of LixCoO2 at which the charge should stop, for comparison in the summary only; the rules
    decide when it stops."""

    @model_validator(mode="after")
    def _catalogue_fills_a_source(self) -> Self:
        if self.source is not None and self.tiled is not None and {"past", "follow"} & self.tiled.model_fields_set:
            raise ValueError("tiled without past and follow, which have no effect beside source")
        return self

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        """Check that a catalogue beside a source only fills the gaps of a ZMQ source."""
        found = [name for name in ("source", "tiled", "nats", "kafka") if getattr(self, name) is not None]
        if len(found) > 1 and found != ["source", "tiled"]:
            raise ValueError(f"found {' and '.join(found)}, expected one of them")
        return self

    @model_validator(mode="after")
    def _simulates_without_a_source(self) -> Self:
        if self.simulation is None:
            return self
        beside = ("source", "tiled", "nats", "kafka", "control_endpoint", "queue_server")
        if found := [name for name in beside if getattr(self, name) is not None]:
            raise ValueError(f"found simulation and {found[0]}, expected one of them")
        return self

    @model_validator(mode="after")
    def _one_control(self) -> Self:
        if self.control_endpoint is not None and self.queue_server is not None:
            raise ValueError("found control_endpoint and queue_server, expected one of them")
        return self

    @field_validator("health", mode="before", json_schema_input_type=str | HealthSettings | None)
    @classmethod
    def _health_address_alone(cls, value: Any) -> Any:
        return {"address": value} if isinstance(value, str) else value

    @field_validator("simulation")
    @classmethod
    def _shows_its_experiment(cls, simulation: BeamlineSettings | None) -> BeamlineSettings | None:
        if simulation is not None:
            simulation.experiment.check_frames(simulation.frames)
        return simulation

    @field_validator("rules")
    @classmethod
    def _names_fit(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        check_names(rules)
        return rules

    @field_validator("rules")
    @classmethod
    def _args_fit(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        for rule in rules:
            try:
                check_action_args(rule.action, rule.args)
            except ValueError as error:
                raise ValueError(f"found rule {rule.name!r} with {error}") from None
        return rules

    @model_validator(mode="after")
    def _values_are_settable(self) -> Self:
        for rule in self.rules if "set" in self.control.allow else ():
            if rule.action == "set" and (refusal := self.control.refusal_of_value(rule.args)):
                raise ValueError(f"found rule {rule.name!r} that would be rejected: {refusal}")
        return self

    @field_validator("rules")
    @classmethod
    def _robots_understand(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        for rule in rules:
            try:
                if rule.action in ROBOT_ACTIONS:
                    check_args(rule.action, rule.args)
            except ValueError as error:
                raise ValueError(
                    f"found args of rule {rule.name!r} that a robot refuses: {cause_of(error)}"
                ) from None
        return rules

    def simulated(self) -> Self:
        """Return the settings for a simulated or repeated experiment; it moves no real robot and notifies nobody."""
        if self.robot is not None or self.notify:
            _log.info("the experiment is simulated: robot and notify of the config are not used")
        return self.model_copy(update={"robot": None, "notify": ()})

    def recorded(self) -> Self:
        """Return the settings for recorded documents; they describe the past, so that nobody is asked or told."""
        endpoints = ("control_endpoint", "queue_server", "robot", "notify")
        if self.control.enabled or any(getattr(self, name) for name in endpoints):
            _log.warning("the documents are recorded: rules only propose", help="xas-agent replay repeats the scan")
        closed = {name: type(self).model_fields[name].get_default() for name in endpoints}
        return self.model_copy(update={**closed, "control": self.control.model_copy(update={"enabled": False})})

    def estimating(self) -> Self:
        """Return the settings of an agent that only estimates; it neither decides nor publishes nor notifies."""
        own = ("rules", "control", "control_endpoint", "queue_server", "robot", "notify", "publish", "health")
        defaults = {
            name: type(self).model_fields[name].get_default() for name in (*own, "source", "tiled", "nats", "kafka")
        }
        return self.model_copy(update=defaults)

    @property
    def shared(self) -> "NATSShared | KafkaShared | None":
        """The broker that supplies the documents, if any."""
        return self.nats or self.kafka

    @property
    def listens(self) -> bool:
        """Whether an endpoint supplies the documents."""
        return self.source is not None or self.tiled is not None or self.shared is not None

    @property
    def sha256(self) -> str:
        """SHA-256 of the settings' canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_config(
    source: str | Path | Mapping[str, Any] | None = None, preset: str | None = None, *, health_remote: bool = False
) -> Config:
    """Read a config.

    Parameters
    ----------
    source : str, Path, mapping or None
        YAML file, name of a shipped config, or settings; None selects the defaults.
    preset : str, optional
        Name of a beamline preset; it replaces the one in the config. The keys of the config override those of the
        preset.
    health_remote : bool
        Whether the config's ``health`` may have an address that other machines reach, whatever the config says.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        The file or the preset does not exist, the file is not YAML, or a key or value is invalid.
    """
    content, origin = _content(source)
    if health_remote and content.get("health"):
        health = Config._health_address_alone(content["health"])
        content["health"] = {**health, "allow_remote": True} if isinstance(health, Mapping) else health
    preset = preset or content.get("preset")
    if preset is None:
        return validate_settings(content, Config, origin) if content else Config()
    if preset not in presets():
        origin = origin if preset == content.get("preset") else "preset"
        near = get_close_matches(str(preset), presets(), n=1, cutoff=0.5)
        closest = f"the closest is {near[0]}; " if near else ""
        raise ConfigError(f"{origin}: no preset {preset!r}; {closest}the presets are {', '.join(presets())}")
    defaults = read_mapping(_BEAMLINES / f"{preset}.yaml")
    return validate_settings(_merged(defaults, content) | {"preset": preset}, Config, origin)


def _content(source: str | Path | Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """Return the keys of a config, and its name for messages."""
    if source is None or isinstance(source, Mapping):
        return dict(source or {}), "config"
    path = Path(source)
    shipped = Path(__file__).parents[1] / "configs" / f"{source}.yaml"
    if not path.is_file() and shipped.is_file():
        path = shipped
    if not path.is_file():
        raise ConfigError(f"{path}: no such config; expected a YAML file, or one of {', '.join(shipped_configs())}")
    return read_mapping(path), str(path)


def _merged(defaults: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``defaults`` overridden by the keys of ``content``, also within groups."""
    merged = dict(defaults)
    for key, value in content.items():
        default = merged.get(key)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(default, value)
        else:
            merged[key] = value
    return merged


def presets() -> list[str]:
    """Return the names of the shipped beamline presets."""
    return sorted(p.stem for p in _BEAMLINES.glob("*.yaml"))


def shipped_configs() -> list[str]:
    """Return the names of the shipped configs."""
    return sorted(p.stem for p in (Path(__file__).parents[1] / "configs").glob("*.yaml"))


def shipped_training() -> list[str]:
    """Return the names of the shipped training configs."""
    return sorted(p.stem for p in _TRAINING.glob("*.yaml"))


def read_training(name_or_file: str) -> "TrainingConfig":
    """Read a training config.

    Parameters
    ----------
    name_or_file : str
        Name of a shipped training config, or a YAML file.

    Returns
    -------
    TrainingConfig

    Raises
    ------
    ConfigError
        The file does not exist or is invalid, or the augmentation does not cover the domain.
    """
    from ..models.training import TrainingConfig

    path = _TRAINING / f"{name_or_file}.yaml" if name_or_file in shipped_training() else Path(name_or_file)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; shipped training configs are {', '.join(shipped_training())}")
    config = read_yaml(path, TrainingConfig)
    if uncovered := config.augmentation.gaps(config.domain):
        raise ConfigError(f"{path}: augmentation does not cover the domain: {'; '.join(uncovered)}")
    return config
