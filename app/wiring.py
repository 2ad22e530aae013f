"""Builds what the agent is made of from a config: frame reader, models, tables."""

import platform
from collections.abc import Sequence
from functools import partial

import numpy as np

from .._version import __version__
from ..agent.stream import FrameReader, external_keys_to_read
from ..agent.types import Estimator, Tabulated
from .config import Config, ConfigError


def frame_reader(config: Config) -> FrameReader:
    """Return what makes frames of documents: the book, files filled in, fly streams joined, the assembler."""
    from ..adapters.assets import AssetFiller

    filler = AssetFiller(config.assets, partial(external_keys_to_read, config.fields, config.fly))
    return FrameReader(config.fields, config.fly, [filler])


def _check_rules(config: Config, models: Sequence[Estimator]) -> None:
    """Refuse a rule that could never fire."""
    known = {name for m in models for name in m.units}
    for rule in config.rules:
        if rule.trigger.descriptor not in known:
            raise ConfigError(
                f"rule {rule.name!r}: found descriptor {rule.trigger.descriptor!r}, "
                f"expected one that a loaded model has: {', '.join(sorted(known))}"
            )


def tabulated(config: Config, models: Sequence[Estimator]) -> dict[str, Tabulated]:
    """What the config's alignment asks for of tables, by model; nothing where it asks for nothing.

    Raises
    ------
    InputError
        The tables are not installed, or the declared compound is none, or holds no absorber of the models.
    """
    alignment = config.alignment
    formula = alignment.self_absorption.formula if alignment.self_absorption is not None else None
    if alignment.normalisation.mode != "mback" and formula is None:
        return {}
    from ..adapters import xray_tables

    found = {m.name: xray_tables.tabulated(alignment, m.absorber, m.edge_name) for m in models}
    if formula is not None and all(t.alpha is None for t in found.values()):
        absorbers = ", ".join(sorted({m.absorber for m in models}))
        raise ConfigError(f"alignment.self_absorption.formula: found {formula}, expected one with {absorbers}")
    return found


def load_models(config: Config) -> Sequence[Estimator]:
    """Load, check and warm up the config's models, or every installed one.

    Raises
    ------
    ModelError
        One of them is not a model, or does not match its card.
    """
    from ..models import card
    from ..models.runtime import Model

    names = config.model.use or tuple(card.installed())
    models = [Model(card.find(name), config.model.device) for name in names]
    for model in models:
        model.warm_up()
    return [*models]


def versions() -> dict[str, str]:
    """Versions that an estimate depends on, for the RunStart."""
    import torch

    return {
        "xas_agent": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
