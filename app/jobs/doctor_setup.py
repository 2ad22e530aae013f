"""Findings of ``xas-agent doctor`` on the set-up: extras, models, ports, endpoints and sessions."""

import shutil
import socket
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...agent.types import InputError
from ..ask import Refused, named, sessions, sockets_folder
from . import endpoints
from .doctor_machine import requirements, unmet
from .finding import Finding

if TYPE_CHECKING:
    from ..config import Config

EXTRAS = {
    "dashboard": "the dashboard in a browser",
    "notebook": "pandas, xarray and a live widget in notebooks",
    "health": "pages for Prometheus",
    "formats": "NeXus and HDF5 files",
    "assets": "arrays in files that documents refer to",
    "tiled": "Tiled catalogues",
    "nats": "documents over NATS",
    "kafka": "documents over Kafka",
    "dask": "backfill of archives, on a cluster too",
    "onnx": "the engine ONNX Runtime, faster on a CPU",
    "adaptive": "scans and searches that ask the agent",
    "train": "training and evaluation of models",
    "quench": "amorphous structures for training",
}
"""Purpose of each extra, except for those for development."""
DASHBOARD = ("127.0.0.1", 8642)
_LONGEST_SOCKET = 107
"""Largest length of the path of a Unix socket on Linux, bytes."""


def extras(settings: "Config | None") -> Iterator[Finding]:
    """Report which extras are installed; those that the config needs must be."""
    needed = _needed(settings)
    for extra, purpose in EXTRAS.items():
        name, pip = f"[{extra}]", f"pip install 'xas-agent[{extra}]'"
        try:
            wanted = requirements(extra)
        except PackageNotFoundError:
            return
        if not wanted:
            continue
        missing, other = unmet(wanted)
        if other:
            yield Finding(
                name, "warn", f"{purpose}: {'; '.join(other)}", f"pip install --upgrade 'xas-agent[{extra}]'"
            )
        elif not missing:
            yield Finding(name, "ok", purpose)
        elif extra in needed:
            yield Finding(name, "fail", f"{purpose}: {needed[extra]} needs {', '.join(missing)}", pip)
        else:
            yield Finding(name, "off", f"{purpose}: not installed", pip)


def _needed(settings: "Config | None") -> dict[str, str]:
    """Return the extras that a config needs, with the keys that need them."""
    if settings is None:
        return {}
    needed = {"health": "health"} if settings.health is not None else {}
    if settings.tiled is not None or (settings.publish is not None and settings.publish.tiled is not None):
        needed["tiled"] = "tiled"
    for key in ("nats", "kafka"):
        if getattr(settings, key) is not None or (settings.publish is not None and getattr(settings.publish, key)):
            needed[key] = key
    if settings.model.engine == "onnx":
        needed["onnx"] = "model.engine"
    if settings.assets.roots:
        needed["assets"] = "assets"
    return needed


def files_of_models() -> Iterator[Finding]:
    """Compare the files of the installed models with their cards."""
    from ...models import card

    fit: list[str] = []
    for name, folder in card.installed().items():
        try:
            card.verify(folder)
        except InputError as error:
            yield Finding("models", "fail", str(error), "pip install --force-reinstall --no-deps xas-agent")
        else:
            fit.append(name)
    if fit:
        yield Finding("models", "ok", f"{', '.join(fit)}: files match their cards")


def ports(settings: "Config | None") -> Iterator[Finding]:
    """Check whether the ports on which a session listens are free."""
    host, port = DASHBOARD
    if why := _taken(host, port):
        yield Finding("port", "warn", f"{port} of the dashboard: {why}", "it takes the next free port, and prints it")
    else:
        yield Finding("port", "ok", f"{port} of the dashboard is free")
    health = settings.health if settings is not None else None
    if health is not None and health.port:
        if why := _taken(health.host, health.port):
            yield Finding("port", "fail", f"{health.port} of health: {why}", "name another one: --health HOST:PORT")
        else:
            yield Finding("port", "ok", f"{health.port} of health is free")


def _taken(host: str, port: int) -> str:
    """Return why an address cannot be bound; empty if it can."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def reached(settings: "Config | None", timeout_s: float) -> Iterator[Finding]:
    """Check whether the endpoints of a config can be reached."""
    if settings is None:
        yield Finding("endpoints", "off", "none named; --config FILE checks those of a config")
        return
    from ..wiring import FENCE, UNFENCED, is_unfenced

    found = False
    for key, address, binds in _endpoints(settings):
        found = True
        if not binds:
            yield _ask(key, address, timeout_s)
        elif why := _unbound(address):
            remedy = f"end what uses it, or name another port: key {key} of the config"
            yield Finding(key, "fail", f"{address}: {why}", remedy)
        else:
            yield Finding(key, "ok", f"{address} is free to listen on")
    if is_unfenced(settings):
        yield Finding("publish.kafka", "warn", UNFENCED, FENCE)
    for to in settings.notify:
        if to.command:
            found = True
            ready = shutil.which(to.command[0]) is not None
            text = f"command {to.command[0]} {'is there' if ready else 'was not found'}"
            yield Finding("notify", "ok" if ready else "fail", text, "" if ready else "correct notify in the config")
    if not found:
        yield Finding("endpoints", "ok", "the config names none: the documents are those of a file, or simulated")


def _endpoints(settings: "Config") -> Iterator[tuple[str, str, bool]]:
    """Yield key and address of each endpoint of a config, and whether the agent listens there."""
    publish: Any = settings.publish
    for key in ("source", "publish", "control_endpoint", "robot", "queue_server"):
        endpoint: Any = getattr(settings, key)
        if endpoint is not None and endpoint.address:
            yield key, endpoint.address, bool(getattr(endpoint, "bind", False))
    for key, tiled in (("tiled", settings.tiled), ("publish.tiled", publish and publish.tiled)):
        if tiled is not None:
            yield key, tiled.uri, False
    for key, broker in (("nats", settings.nats), ("publish.nats", publish and publish.nats)):
        if broker is not None:
            yield key, broker.server, False
    for key, broker in (("kafka", settings.kafka), ("publish.kafka", publish and publish.kafka)):
        if broker is not None:
            yield key, f"kafka://{broker.brokers.split(',')[0]}", False
    for to in settings.notify:
        if to.webhook:
            address = urlsplit(to.webhook)  # its path is often a secret
            yield "notify", f"{address.scheme}://{address.netloc}", False
        if to.email is not None:
            yield "notify", f"smtp://{to.email.host}:{to.email.port}", False


def _ask(key: str, address: str, timeout_s: float) -> Finding:
    """Report who answers at an address."""
    remedy = f"start the other side, or correct it: key {key} of the config"
    try:
        return Finding(key, "ok", f"{address}: {endpoints.ask(address, timeout_s)} answers")
    except endpoints.Silent as protocol:
        text = f"{address}: a port is open, but nothing says within {timeout_s:g} s that it speaks {protocol}"
        return Finding(key, "warn", text, f"look which program listens there: key {key} of the config")
    except TimeoutError:
        return Finding(key, "fail", f"{address}: no answer within {timeout_s:g} s", remedy)
    except OSError as error:
        return Finding(key, "fail", f"{address}: {error.strerror or error}", remedy)


def _unbound(address: str) -> str:
    """Return why the agent cannot listen on an address; empty if it can."""
    parts = urlsplit(address if "://" in address else f"zmq://{address}")
    if parts.scheme == "ipc":
        folder = Path(address.removeprefix("ipc://")).parent
        return "" if folder.is_dir() else f"found no folder {folder}"
    host, port = parts.hostname or "", parts.port
    return _taken("0.0.0.0" if host == "*" else host, port) if port else ""


def sockets() -> Iterator[Finding]:
    """Report the folder in which a person reaches sessions, and the sessions that run or left something behind."""
    try:
        folder = sockets_folder()
        running, left = sessions()
    except (Refused, OSError) as error:
        yield Finding("sockets", "fail", str(error), "set XDG_RUNTIME_DIR to a folder of your own, mode 0700")
        return
    if len(str(folder / "4194304.sock")) > _LONGEST_SOCKET:
        text = f"{folder}: its path is longer than a socket's may be ({_LONGEST_SOCKET} characters)"
        yield Finding("sockets", "fail", text, "set XDG_RUNTIME_DIR to a shorter folder")
        return
    yield Finding("sockets", "ok", f"{folder}")
    for one in running:
        yield Finding("sessions", "ok", f"runs: {named(one.identity)}")
    if left:
        of = ", ".join(path.stem for path in left)
        text = f"{len(left)} ended without a farewell (process {of}); a session with --out can go on"
        yield Finding("sessions", "warn", text, "xas-agent run --resume DIR; xas-agent status clears this line")
    elif not running:
        yield Finding("sessions", "ok", "none runs, and none was killed")
