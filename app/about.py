"""Writes the config and the rules of a session into its folder, for later readers."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._version import __version__
from ..adapters.codecs import to_json
from ..agent.decide import Band, QuantityTrigger, Rule, Threshold, Unfamiliar, triggers_in
from ..agent.types import get_logger
from .config import Config
from .explain import explain
from .output.kept import replace_file
from .output.names import SESSION

_log = get_logger()


def write_about(folder: Path, config: Config, source: str, units: Mapping[str, str]) -> None:
    """Write :data:`SESSION`; if the disk refuses it, the session continues without it.

    Parameters
    ----------
    units : units of the quantities, by name
    """
    about = {
        "version": __version__,
        "written": time.time(),
        "source": source,
        "config_sha256": config.sha256,
        "config": shown(config),
        "rules": described(config.rules, units),
    }
    text = to_json(about) + "\n"
    try:
        replace_file(folder / SESSION, lambda new: _write(new, text))
    except OSError as error:
        _log.warning("session not described", file=SESSION, detail=str(error.strerror or error))


def shown(config: Config) -> dict[str, Any]:
    """Return the settings that differ from the defaults; only the name of a destination, whose URL may be secret."""
    content = config.model_dump(mode="json", exclude_unset=True)
    if config.notify:
        content["notify"] = [destination.name for destination in config.notify]
    return content


def described(rules: Sequence[Rule], units: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return each rule in words, with the quantity and the levels that it judges first."""
    found: list[dict[str, Any]] = []
    for rule in rules:
        parts = [part for part in triggers_in(rule.trigger) if isinstance(part, QuantityTrigger)]
        quantity = parts[0].quantity if parts else ""
        levels = [
            bar
            for part in parts
            if isinstance(part, Threshold | Band | Unfamiliar) and part.quantity == quantity
            for bar in part.bars
        ]
        found.append(
            {
                "name": rule.name,
                "action": rule.action,
                "trigger": rule.trigger.kind,
                "quantity": quantity,
                "levels": levels,
                "unit": units.get(quantity, ""),
                "text": explain(rule, units),
            }
        )
    return found


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
