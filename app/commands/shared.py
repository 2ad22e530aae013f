"""Parts of all commands: settings from options, exit codes, error messages and the summary."""

import os
import re
import shlex
import signal
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from ..output.folder import OutputFolder
    from ..session import Session

FAILED, USAGE, UNREACHABLE, SET_ASIDE, INTERRUPTED = 1, 2, 3, 4, 130
EXIT_CODES = {
    0: ("The command did its work.", "Nothing to do."),
    FAILED: (
        "A source broke off, gave no document or did not start; or the disk did not take all, so that files of "
        "`--out` are not whole; or a person's order was not carried out; or `xas-agent doctor` found a failure.",
        "Do what the last line on stderr says, and look at the log of the beamline. After a full disk, make space; "
        "`xas-agent rebuild` makes tables and picture again.",
    ),
    USAGE: (
        "The command line, a config, a file or a folder cannot be used.",
        "Correct what the last line on stderr names, and repeat the command.",
    ),
    UNREACHABLE: ("An endpoint cannot be reached.", "Check address, port and firewall; start the other side first."),
    SET_ASIDE: (
        "With `--strict`: spectra were set aside, files were refused, or no spectrum was read.",
        "Look up the reasons that the summary gives; `xas-agent inspect` shows why a source is not read.",
    ),
    INTERRUPTED: (
        "Ctrl-C ended a batch early, or a second signal ended a session; what was done until then is kept.",
        "Repeat the command, a session with a new `--out`; `xas-agent rebuild` makes tables and picture of the old "
        "one.",
    ),
    128 + signal.SIGTERM: (
        "SIGTERM ended a command other than a session or a batch.",
        "Repeat the command; `xas-agent dataset feff` and `xas-agent evaluate` continue where they were.",
    ),
}
"""Meaning and remedy of each exit code, for ``--help`` and the reference; :mod:`.examples` has them in short."""


@dataclass(frozen=True)
class Curve:
    """The CURVE keys of the command line."""

    key: Path | None = None
    server_key: Path | None = None
    clients: Path | None = None

    def of(self, binds: bool) -> dict[str, Path | None]:
        """Return the keys of an endpoint that binds, or of one that connects."""
        other = {"curve_client_keys": self.clients} if binds else {"curve_server_key": self.server_key}
        given = {"curve_secret_key": self.key, **other}
        return {name: path for name, path in given.items() if path is not None}

    def refuse_unused(self, endpoints: Iterable[bool]) -> None:
        """Fail if a key is given that no endpoint uses; each of ``endpoints`` says whether it binds."""
        binds = set(endpoints)
        if self != Curve() and not binds:
            fail("CURVE keys: no effect without a ZMQ endpoint", USAGE)
        if self.clients is not None and True not in binds:
            fail("--curve-clients: no effect without an endpoint that binds; set bind: true, or leave it out", USAGE)
        if self.server_key is not None and False not in binds:
            fail("--curve-server-key: no effect without an endpoint that connects; leave it out", USAGE)


def settings_of(
    config: str | None,
    model: str | None = None,
    element: str | None = None,
    edge: str | None = None,
    source: str | None = None,
    publish: str | None = None,
    connect_timeout: float | None = None,
    single_site: bool = False,
    preset: str | None = None,
    curve: Curve = Curve(),
    control_secret: Path | None = None,
    health: str | None = None,
    health_remote: bool = False,
) -> Any:
    """Return the config, with the options of the command line in place of its keys.

    Raises
    ------
    InputError
        The config or an option cannot be used, or no model is for the element and edge.
    """
    from ...agent.types import validate_settings
    from ..config import Config, load_config
    from ..wiring import model_folders

    settings = load_config(config, preset, health_remote=health_remote)
    content = settings.model_dump(exclude_unset=True)
    for part, key, value in (("fields", "element", element), ("fields", "edge", edge)):
        if value is not None:
            content.setdefault(part, {})[key] = value
    if model is not None:
        content.setdefault("model", {})["use"] = (model,)
    if health is not None:
        content["health"] = {**(content.get("health") or {}), "address": health}
    if health_remote:
        if not content.get("health"):
            refuse_unused("without --health, or health in the config", health_remote=True)
        content["health"]["allow_remote"] = True
    if single_site:
        content.setdefault("serving", {})["single_site"] = True
    if source is not None:
        key = broker_of(source) or ("tiled" if is_tiled(source) else "source")
        if key == "source" and "://" in source and not source.startswith(("zmq://", "tcp://", "ipc://")):
            expected = "expected zmq://, ipc://, tiled://, nats://, kafka:// or a file of documents"
            fail(f"--source: found {source!r}, {expected}", USAGE)
        others = [name for name in ("source", "tiled", "nats", "kafka") if name != key]
        for other in others:
            if (key, other) != ("source", "tiled") or not content.get("source"):  # a catalogue beside ZMQ is kept
                content.pop(other, None)
        if key != "source":
            content[key] = {**(content.get(key) or {}), "uri" if key == "tiled" else "address": source}
            source = None
    for key in ("tiled", "nats", "kafka"):
        if connect_timeout is not None and content.get(key):
            content[key]["connect_timeout_s"] = connect_timeout
    if publish is not None and (key := broker_of(publish) or ("tiled" if is_tiled(publish) else "")):
        earlier = (content.get("publish") or {}).get(key) or {}
        content["publish"] = {key: {**earlier, "uri" if key == "tiled" else "address": publish}}
        publish = None
    for key in ("nats", "kafka"):
        if connect_timeout is not None and (content.get("publish") or {}).get(key):
            content["publish"][key]["connect_timeout_s"] = connect_timeout
    for key, address in (("source", source), ("publish", publish)):
        if address is not None:
            content[key] = {**(content.get(key) or {}), "address": address}
        if connect_timeout is not None and (content.get(key) or {}).get("address"):
            content[key]["connect_timeout_s"] = connect_timeout
    _add_security(content, curve, control_secret)
    settings = validate_settings(content, Config, "command line")
    model_folders(settings)  # before a source is connected or a folder is made
    return settings


def _add_security(content: dict[str, Any], curve: Curve, control_secret: Path | None) -> None:
    """Add the keys and the secret of the command line to every ZMQ endpoint of a config."""
    groups = [content.get(key) or {} for key in ("source", "publish", "control_endpoint", "robot")]
    endpoints = [group for group in groups if group.get("address")]
    for endpoint in endpoints:
        endpoint |= curve.of(endpoint.get("bind", False))
    curve.refuse_unused(endpoint.get("bind", False) for endpoint in endpoints)
    if control_secret is not None:
        controls = [content[key] for key in ("control_endpoint", "robot") if content.get(key)]
        if not controls:
            fail("--control-secret: no effect without control_endpoint or robot in the config", USAGE)
        for control in controls:
            control["secret_file"] = control_secret


def is_tiled(address: str) -> bool:
    """Whether an address is the URI of a Tiled catalogue."""
    from ...adapters.tiled import SCHEMES

    scheme, sign, _ = address.partition("://")
    return bool(sign) and scheme in SCHEMES


def broker_of(address: str) -> str:
    """Return the key of the config for an address of a broker; empty for any other address."""
    from ...adapters import kafka, nats

    scheme, sign, _ = address.partition("://")
    if sign:
        for key, schemes in (("nats", nats.SCHEMES), ("kafka", kafka.SCHEMES)):
            if scheme in schemes:
                return key
    return ""


class WithDashboard(TyperCommand):
    """A command whose option ``--dashboard`` may have no value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given: list[str] = []
        for arg, after in zip(args, [*args[1:], ""], strict=False):  # an empty list stays empty
            given.append(arg)
            if arg == "--dashboard" and not re.fullmatch(r"[^\s/]*:\d+", after):
                given.append(":")
        return super().parse_args(ctx, given)


@contextmanager
def dashboard_of(output: "OutputFolder | None", bind: str | None, off: bool) -> Iterator[None]:
    """Show the session of a folder while the block runs, and say where; without ``bind`` do nothing.

    Raises
    ------
    InputError
        There is no output folder, the extra is not installed, or ``bind`` is no address.
    EndpointUnreachable
        The address cannot be bound.
    """
    if bind is None or off:
        yield
        return
    from ..dashboard import Dashboard

    if output is None:
        fail("--dashboard: needs --out, since it shows what a session writes", USAGE)
    dashboard = Dashboard(output.folder, bind.removesuffix(":"))
    output.dashboard = dashboard.address
    for line in dashboard.lines:
        typer.echo(line, err=True)
    try:
        yield
    finally:
        typer.echo(dashboard.close(), err=True)


def columns_of(options: list[str] | None) -> dict[str, list[str]] | None:
    """Return columns by role from options ``ROLE=NAME`` and ``ROLE=NAME,NAME``; None without options."""
    columns: dict[str, list[str]] = {}
    for text in options or ():
        role, sign, names = text.partition("=")
        if not sign or not role.strip() or not names.strip():
            fail(f"--column {text}: expected ROLE=NAME, e.g. energy=mono", USAGE)
        columns.setdefault(role.strip(), []).extend(name.strip() for name in names.split(","))
    return columns or None


def refuse_unused(condition: str, **options: object) -> None:
    """Fail if an option is set (not None) that has no effect under a condition."""
    if names := [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]:
        fail(f"{', '.join(names)}: no effect {condition}", USAGE)


def conclude(session: "Session", strict: bool) -> None:
    """Print the summary; exit with the code of what went wrong.

    That is, in this order: the source's error, a second signal, files that are not whole and, if ``strict``, frames
    that were set aside.
    """
    summary = session.summary()
    for key, value in summary.items():
        if key == "rules":  # their judgements are for programs; picture and live view show them
            continue
        if key == "files_not_read":
            for name, reason in value.items():
                _show(key, f"{name}: {reason}")
        elif key == "gain":
            for name in ("open loop", "closed loop", "gained"):
                if value and name in value:
                    _show(name, value[name])
        elif value not in (None, {}, False) or key == "frames":
            _show(key, _plain({**value, "sha256": value["sha256"][:12]} if key == "model" and value else value))
    folder = session.output.folder if session.output is not None else None
    if folder is not None:
        _show("written", f"{folder}/")
        if summary["frames"]:
            name = shlex.quote(str(folder))
            _show("next", f"xas-agent view {name} (in a browser), xas-agent report {name} (one page)")
    if session.failure is not None:
        with exit_on_error():
            raise session.failure
    if not summary["frames"] and not summary["frames_set_aside"]:
        of = "a recording of its runs" if session.config.shared else "a source"
        typer.echo(f"no spectrum was read; xas-agent inspect shows the fields of {of}", err=True)
    not_written = _not_written(session, summary["not_written"])
    if session.hurried.is_set():
        said = f"ended by a second signal; not answered: {_plain(summary['unanswered']) or 'nothing'}"
        fail("; ".join([said, *not_written]), INTERRUPTED)
    if summary["not_written"]:
        fail("; ".join(["the disk did not take all; see the log, and make space", *not_written]), FAILED)
    lost = summary["frames_set_aside"] or summary["files_not_read"]
    if strict and (lost or not (summary["frames"] or summary["interrupted"])):
        raise typer.Exit(SET_ASIDE)


def _not_written(session: "Session", lost: Mapping[str, int]) -> list[str]:
    """Return in words which files are not whole, how much they lack, and the remedy; empty if all are whole."""
    if session.output is None or not (names := session.output.not_whole):
        return []
    folder = session.output.folder
    said = [f"not whole in {folder}: {', '.join(names)}"]
    said += [f"not written: {_plain(lost)}"] if lost else []
    return [*said, f"xas-agent rebuild {folder} makes tables and picture again from documents.jsonl"]


def _show(key: str, text: str) -> None:
    """Print an entry of the summary in lines of at most 80 characters; words are never cut."""
    first, others = f"{key:18} ", " " * 19
    filled = textwrap.fill(
        text, 80, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )
    typer.echo(filled or first)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Replace errors that a user can correct by one line on stderr and an exit code."""
    from ...adapters.errors import EndpointUnreachable
    from ...agent.types import InputError
    from ..failures import BeamlineFailed, SourceFailed

    try:
        yield
    except EndpointUnreachable as error:
        fail(str(error), UNREACHABLE)
    except InputError as error:
        fail(str(error), USAGE)
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
    except (BeamlineFailed, SourceFailed) as error:
        fail(str(error), FAILED)


def conclude_batch(batch: Any, set_aside: Sequence[str], spectra: int, strict: bool) -> None:
    """Summarise on stderr which files were refused and which spectra set aside; exit with the code of the batch.

    Parameters
    ----------
    batch : Batch
        The files of the command.
    set_aside : sequence of str
        Reason of each spectrum that was set aside.
    spectra : int
        Number of spectra.
    strict : bool
        Whether refused files and spectra set aside end in exit code 4.
    """
    from ...adapters.files import reasons_of

    say_refused(len(batch.refused), reasons_of(batch.refused))
    say_set_aside(set_aside, spectra)
    if batch.interrupted:
        fail("interrupted; the results are those until then", INTERRUPTED)
    if strict and (batch.refused or set_aside):
        raise typer.Exit(SET_ASIDE)


def say_refused(number: int, reasons: Sequence[str]) -> None:
    """Say on stderr how many files were refused, with a line for each reason."""
    if number:
        typer.echo(f"{number} {'file' if number == 1 else 'files'} refused:", err=True)
    for line in reasons:
        typer.echo(f"  {line}", err=True)


def say_set_aside(reasons: Sequence[str], spectra: int) -> None:
    """Say on stderr for which reasons how many of several spectra were set aside."""
    if reasons and spectra > 1:
        counts = Counter(reason.partition(":")[0] for reason in reasons)
        typer.echo(f"{len(reasons)} of {spectra} spectra set aside: {_plain(dict(counts))}", err=True)


def check_folder_of(option: str, file: Path) -> None:
    """End the command, before its work, if the folder of a file to be written is not there or is protected."""
    if not file.parent.is_dir():
        fail(f"{option} {file}: found no folder {file.parent} to write in; make it, or name another", USAGE)
    if not os.access(file.parent, os.W_OK):
        fail(f"{option} {file}: the folder {file.parent.resolve()} may not be written; name another", USAGE)


def fail(message: str, code: int) -> NoReturn:
    """Print an error message on stderr and exit."""
    typer.echo(f"xas-agent: {message}", err=True)
    raise typer.Exit(code)
