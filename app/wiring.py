"""Builds the parts of the agent from a config: frame reader, models and tables."""

import platform
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._version import __version__
from ..adapters.assets import AssetFiller
from ..adapters.files import frame_of
from ..adapters.formats import read_spectra
from ..adapters.kafka import KafkaSink
from ..adapters.nats import NATSSink
from ..adapters.notify import Notifications
from ..adapters.queueserver import QueueServerControl
from ..adapters.robot import RobotControl
from ..adapters.tiled import TiledSink
from ..adapters.zmq import ZMQControl, ZMQSink
from ..agent.decide import (
    PARTS,
    READINGS,
    Band,
    Controls,
    QuantityTrigger,
    Rule,
    Threshold,
    Undecided,
    out_of_reach,
    takes,
    triggers_in,
    without_part,
)
from ..agent.estimate import FrameServer
from ..agent.publish import ALIGNMENT_UNITS
from ..agent.relative import RelativeQuantities, check_descriptors, derived_units, setting_for
from ..agent.spectra import SeriesAlignment
from ..agent.stream import FrameReader, external_keys_to_read
from ..agent.types import Control, Estimator, Frame, SelectiveControl, Tabulated, get_logger
from ..models.engines import EngineName
from .config import Config, ConfigError

_log = get_logger()


def asset_filler(config: Config) -> AssetFiller:
    """Return the reader of arrays in files that the config's fields need."""
    return AssetFiller(config.assets, partial(external_keys_to_read, config.fields, config.fly))


def frame_reader(config: Config, source: str | None = None) -> FrameReader:
    """Return the reader that assembles frames from documents, including external files and fly scans.

    ``source`` names the source of the documents, for messages, if the config does not.
    """
    if config.source:
        source = config.source.address
    elif config.tiled:
        source = config.tiled.uri
    elif config.shared:
        source = "RECORDING"  # of the runs; inspect reads no broker, where documents belong to a group of agents
    return FrameReader(config.fields, config.fly, [asset_filler(config)], source, config.series)


Sink = ZMQSink | TiledSink | NATSSink | KafkaSink


def publishers(config: Config) -> list[Sink]:
    """Return the sinks to which the config publishes, not yet connected."""
    sinks: list[Sink] = []
    publish = config.publish
    if publish is None:
        return sinks
    if publish.address:
        sinks.append(ZMQSink(publish))
    if publish.tiled is not None:
        sinks.append(TiledSink(publish.tiled))
    if publish.nats is not None:
        sinks.append(NATSSink(publish.nats))
    if publish.kafka is not None:
        sinks.append(KafkaSink(publish.kafka))
    return sinks


def descriptor_units(models: Sequence[Estimator]) -> dict[str, str]:
    """Return the units of the descriptors of all models, by name."""
    return {name: unit for model in models for name, unit in model.units.items()}


def relative_quantities(config: Config, models: Sequence[Estimator]) -> RelativeQuantities:
    """Return the stage of anchors and relative quantities, with the references that are files.

    Raises
    ------
    ConfigError
        No model estimates a requested descriptor, or a reference is not a single spectrum that a model can serve.
    SpectrumFileError
        A reference cannot be read.
    """
    units, relative = descriptor_units(models), config.relative
    check_descriptors("anchors", [name for anchor in config.anchors for name in anchor.values], units)
    check_descriptors("relative.change", relative.change, units)
    check_descriptors("relative.rate", relative.rate, units)
    spectra = {file: _aligned(file, config, models) for file in relative.files}
    return RelativeQuantities(config.anchors, relative, units, spectra)


def _aligned(file: str, config: Config, models: Sequence[Estimator]) -> dict[str, NDArray[np.float32]]:
    """Return the only spectrum of a file on the grid of each model that can serve it, by model name."""
    found = read_spectra(file)
    frame = frame_of(found[0], 1, config.fields) if len(found) == 1 else f"{len(found)} spectra, name a file of one"
    if not isinstance(frame, Frame):
        raise ConfigError(f"relative.references: found {file}: {frame}")
    align = SeriesAlignment(config.alignment, tabulated=load_tables(config, models))
    servers = [FrameServer([model], align, None, named=True) for model in models]
    answers = [answer for server in servers for answer in server.aligned([frame])]
    spectra = {a.model.name: a.mu for a in answers if a.model is not None and a.refusal is None}
    if not spectra:
        raise ConfigError(f"relative.references: found {file}: {answers[0].refusal}")
    return spectra


def control_of(
    config: Config, RE: Any = None, given: Control | None = None, session: str | None = None
) -> Control | None:
    """Return the control that decisions act on; None if there is none.

    The given control, or else a RunEngine, or else the config's ``control_endpoint`` or ``queue_server`` takes all
    actions except those of the config's robot, and except ``notify`` if the config has destinations.

    Parameters
    ----------
    session : name of a session that can continue after a restart, and then still holds the lease of its beamline
    """
    if given is None and RE is not None:
        from ..adapters.runengine import RunEngineControl

        given = RunEngineControl(RE)
    elif given is None and config.control_endpoint is not None:
        given = ZMQControl(config.control_endpoint, agent=session)
    elif given is None and config.queue_server is not None:
        given = QueueServerControl(config.queue_server, session or "", hold=config.control.enabled)
    selective: list[SelectiveControl] = []
    if config.notify:
        selective.append(Notifications(config.notify))
    if config.robot is not None:
        selective.append(RobotControl(config.robot))
    return Controls(*selective, other=given) if selective else given


def check_rules(config: Config, models: Sequence[Estimator]) -> None:
    """Refuse rules on quantities that no frame can have, and warn of bars that no frame can reach.

    Raises
    ------
    ConfigError
        A rule is for an absorber without a loaded model; or it names a quantity that is neither a descriptor of a
        model for its absorber, nor a relative quantity, nor a quantity of the alignment, nor a reading; or it applies
        ``undecided`` to something other than a descriptor.
    """
    for rule in config.rules:
        fit = [model for model in models if rule.concerns(model.absorber, model.edge_name)]
        if models and not fit:
            served = ", ".join(f"{model.absorber} {model.edge_name}" for model in models)
            wanted = " ".join(filter(None, (rule.element, rule.edge)))
            raise ConfigError(f"rule {rule.name!r}: found {wanted}, expected an absorber of the models: {served}")
        _check_quantities(rule, config, fit)


def warn_if_nobody_is_told(config: Config, control: Control | None) -> None:
    """Warn of rules with ``notify`` if nothing takes their notifications."""
    telling = [rule.name for rule in config.rules if rule.action == "notify"]
    if telling and not takes(control, "notify"):
        why = "the config names no destination under notify: decisions are only logged and published"
        _log.warning("nobody is told", rules=", ".join(telling), why=why)


UNFENCED = (
    "the work is shared over NATS and the answers go to Kafka: an agent that was cut off from NATS may still publish "
    "frames that another one answers"
)
FENCE = (
    "publish over NATS, or share over Kafka; else let the group have one agent, or drop what has a header frame twice"
)


def warn_if_unfenced(config: Config) -> None:
    """Warn if two agents of a group might both publish answers, because no common service refuses the second."""
    if is_unfenced(config):
        _log.warning("frames may be answered twice", why=UNFENCED, help=FENCE)


def is_unfenced(config: Config) -> bool:
    """Return whether answers of an agent that has lost its runs can still be published.

    A NATS stream accepts one answer to a frame, whatever the source. With Kafka, only a source in Kafka tells the
    sink which runs the agent holds.
    """
    return config.nats is not None and config.publish is not None and config.publish.kafka is not None


def _check_quantities(rule: Rule, config: Config, models: Sequence[Estimator]) -> None:
    """Refuse a rule on quantities that no frame can have, and warn of bars that no frame can reach."""
    units = descriptor_units(models)
    descriptors = [*units, *derived_units(config.relative, units)]
    known = [*descriptors, "ood_score", *ALIGNMENT_UNITS]
    parts = [f"{name}_{part}" for name in descriptors for part in PARTS]
    for trigger in triggers_in(rule.trigger):
        if isinstance(trigger, Undecided) and (name := trigger.of.quantity) not in descriptors:
            expected = "expected a descriptor, which has a scatter of repeats (sd_frame)"
            raise ConfigError(f"rule {rule.name!r}: found quantity {name!r} in undecided, {expected}")
        if not isinstance(trigger, QuantityTrigger):
            continue
        name = trigger.quantity
        if not name.startswith(READINGS) and name not in {*known, *parts}:
            if setting := setting_for(without_part(name), units):
                raise ConfigError(f"rule {rule.name!r}: {name} needs {setting} in the config")
            expected = get_close_matches(name, [*known, *parts], n=3) or [*units, "ood_score"]
            raise ConfigError(
                f"rule {rule.name!r}: found quantity {name!r}, expected a descriptor, a quantity of the alignment, "
                f"or a reading, which would be {READINGS}{name}; similar: {', '.join(expected)}"
            )
        if without_part(name) in {f"{d}_anchored" for d in units} and not config.anchors:
            why = "the config has no anchors: it needs those of a RunStart or of XASAgent.anchor"
            _log.warning("rule waits for anchors", rule=rule.name, quantity=name, why=why)
        if isinstance(trigger, Threshold | Band):
            _warn_if_out_of_reach(rule, trigger, models)


def _warn_if_out_of_reach(rule: Rule, trigger: Threshold | Band, models: Sequence[Estimator]) -> None:
    """Warn of a level that no model reaches; a rule for all absorbers may be intended for only some of them."""
    name = trigger.quantity.removesuffix("_mean").removesuffix("_anchored")
    reasons = {model.name: out_of_reach(trigger, model.reach.get(name)) for model in models}
    beyond = {model: why for model, why in reasons.items() if why}
    log = _log.warning if len(beyond) == len(reasons) else _log.info
    for model, why in beyond.items():
        log("rule cannot decide", rule=rule.name, model=model, why=why)


def units_of(config: Config, models: Sequence[Estimator]) -> dict[str, str]:
    """Return the units of all quantities that rules can watch, by name; dimensionless ones are absent."""
    units = descriptor_units(models)
    units |= derived_units(config.relative, units)
    units |= {f"{name}_{part}": unit for name, unit in list(units.items()) for part in PARTS if part != "p"}
    return {name: unit for name, unit in {**ALIGNMENT_UNITS, **units}.items() if unit != "dimensionless"}


def load_tables(config: Config, models: Sequence[Estimator]) -> dict[str, Tabulated]:
    """Return the X-ray tables that the alignment settings require, by model name; empty if they require none.

    Raises
    ------
    InputError
        The formula of the sample is invalid, or it contains no absorber of the models.
    """
    alignment = config.alignment
    formula = alignment.self_absorption.formula if alignment.self_absorption is not None else None
    if alignment.normalisation.mode != "mback" and formula is None:
        return {}
    from ..adapters import xray_tables

    tables = {m.name: xray_tables.tabulated(alignment, m.absorber, m.edge_name) for m in models}
    if formula is not None and all(table.alpha is None for table in tables.values()):
        absorbers = ", ".join(sorted({m.absorber for m in models}))
        raise ConfigError(f"alignment.self_absorption.formula: found {formula}, expected one with {absorbers}")
    return tables


def model_folders(config: Config) -> list[Path]:
    """Return the folders of the config's models, or of all installed ones, for the absorber in the config.

    Raises
    ------
    ModelError
        A folder is not a model.
    ConfigError
        No model fits the element and edge in the config.
    """
    from ..models import card

    folders = [card.find(name) for name in config.model.use or card.installed()]
    cards = {folder: card.read_card(folder) for folder in folders}
    element, edge = config.fields.element, config.fields.edge
    fits = [f for f, c in cards.items() if element in (None, c.absorber) and edge in (None, c.edge)]
    if not fits:
        wanted = " ".join(filter(None, (element, edge)))
        served = ", ".join(f"{c.name} is for {c.absorber} {c.edge}" for c in cards.values())
        raise ConfigError(f"no model for {wanted}: {served}")
    return fits


def identity_of(config: Config, source: str) -> dict[str, str]:
    """Return the settings that must be equal for a session to continue in its folder."""
    from ..models.card import read_card

    cards = [read_card(folder) for folder in model_folders(config)]
    models = ", ".join(f"{card.name} {card.sha256}" for card in cards)
    return {"source": source, "config": config.sha256, "models": models}


def load_models(config: Config, *, at_once: bool = True) -> Sequence[Estimator]:
    """Load, verify and warm up the models of :func:`model_folders`.

    Parameters
    ----------
    config : Config
    at_once : bool
        Whether to load and warm up the networks now; otherwise each is loaded for its first estimate.

    Raises
    ------
    ModelError
        A folder is not a model, or its file does not match its card.
    ConfigError
        No model fits the element and edge in the config.
    """
    how = (config.model.device, config.model.engine, config.model.threads)
    if not at_once and config.model.device != "cuda":  # a GPU must be available
        from ..models.lazy import LazyModel

        return [LazyModel(folder, *how) for folder in model_folders(config)]
    from ..models.runtime import Model

    models = [Model(folder, *how) for folder in model_folders(config)]
    for model in models:
        model.warm_up()
    return [*models]


def versions(engine: EngineName) -> dict[str, str]:
    """Return the versions that an estimate depends on, for the RunStart."""
    package = "onnxruntime" if engine == "onnx" else "torch"
    return {
        "xas_agent": __version__,
        package: version(package),  # without importing it
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
