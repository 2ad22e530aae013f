"""Checks whether this machine, its packages and a config are ready: the findings of ``xas-agent doctor``."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...agent.types import InputError
from ...wording import counted
from .doctor_machine import clock, disk, memory, packages, python, terminal
from .doctor_setup import EXTRAS, extras, files_of_models, ports, reached, sockets
from .finding import Finding

if TYPE_CHECKING:
    from ..config import Config

__all__ = ["EXTRAS", "Finding", "findings"]


def findings(config: str | None, out: Path, *, timeout_s: float = 3.0) -> Iterator[Finding]:
    """Yield each finding as soon as it is known.

    Parameters
    ----------
    config : str or None
        YAML file or name of a shipped config, whose models, rules, ports and endpoints are checked too.
    out : Path
        Output folder of a session; it need not exist.
    timeout_s : float
        Longest wait for an endpoint, s.
    """
    yield python()
    yield from packages()
    yield from terminal()
    settings, problem = _read(config)
    if config is not None:
        yield problem or Finding("config", "ok", f"{config} is valid")
    yield from extras(settings)
    yield from _computes(settings)
    yield from files_of_models()
    yield from ports(settings)
    yield from reached(settings, timeout_s)
    yield from clock()
    yield from memory()
    yield from disk(out)
    yield from sockets()


def _read(config: str | None) -> "tuple[Config | None, Finding | None]":
    from ..config import load_config

    if config is None:
        return None, None
    try:
        return load_config(config), None
    except InputError as error:
        return None, Finding("config", "fail", str(error), "correct it, then: xas-agent rules explain " + config)


def _computes(settings: "Config | None") -> Iterator[Finding]:
    """Load the models of the config, or otherwise the first installed one, and let them answer."""
    import torch

    from ..config import Config
    from ..wiring import check_rules, load_models

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    where = f"on {gpu}" if gpu else f"on {counted(torch.get_num_threads(), 'thread')} of the CPU"
    wanted = settings or Config.model_validate({"model": {"use": ["co-k"]}})
    if wanted.model.device == "cuda" and not gpu:
        why = "the config has model.device: cuda, and torch finds no GPU"
        yield Finding("torch", "fail", f"{torch.__version__}: {why}", "install torch for CUDA, or use device: auto")
        return
    try:
        models = load_models(wanted)
    except InputError as error:
        yield Finding("model", "fail", str(error), "xas-agent models list shows those that are installed")
        return
    names = ", ".join(model.name for model in models)
    answer = "answers" if len(models) == 1 else "answer"
    yield Finding("torch", "ok", f"{torch.__version__} {where}; {names} {answer}")
    if not gpu and shutil.which("nvidia-smi"):
        text = "nvidia-smi is here, but this torch sees no GPU; for frames that take seconds a CPU will do"
        yield Finding("torch", "warn", text, "to use the GPU, install torch for CUDA and look at its driver")
    if settings is None or not settings.rules:
        return
    try:
        check_rules(settings, models)
    except InputError as error:
        yield Finding("rules", "fail", str(error), "xas-agent rules triggers lists kinds and keys")
        return
    yield Finding("rules", "ok", ", ".join(rule.name for rule in settings.rules))
