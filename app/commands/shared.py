"""What all commands share: settings from options, one line for what a user can mend, the summary."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

FAILED, USAGE, UNREACHABLE, SET_ASIDE = 1, 2, 3, 4
"""Exit codes; 0 is done."""


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
) -> Any:
    """The config with what the command line says over it."""
    from ...agent.types import validate_settings
    from ..config import Config, load_config

    settings = load_config(config, preset)
    content = settings.model_dump(exclude_unset=True)
    for part, key, value in (("fields", "element", element), ("fields", "edge", edge)):
        if value is not None:
            content.setdefault(part, {})[key] = value
    if model is not None:
        content.setdefault("model", {})["use"] = (model,)
    if single_site:
        content.setdefault("serving", {})["single_site"] = True
    if source is not None and source.partition("://")[0] in ("tiled", "http", "https"):
        content["tiled"] = {**(content.get("tiled") or {}), "uri": source}
        content.pop("source", None)
        source = None
    elif source is not None:
        content.pop("tiled", None)
    if connect_timeout is not None and content.get("tiled"):
        content["tiled"]["connect_timeout_s"] = connect_timeout
    for key, address in (("source", source), ("publish", publish)):
        if address is not None:
            content[key] = {**(content.get(key) or {}), "address": address}
        if connect_timeout is not None and content.get(key):
            content[key]["connect_timeout_s"] = connect_timeout
    return validate_settings(content, Config, "command line")


def columns_of(given: list[str] | None) -> dict[str, list[str]] | None:
    """``ROLE=NAME`` and ``ROLE=NAME,NAME`` as columns by role."""
    found: dict[str, list[str]] = {}
    for text in given or ():
        role, sign, names = text.partition("=")
        if not sign or not role.strip() or not names.strip():
            fail(f"--column {text}: expected ROLE=NAME, e.g. energy=mono", USAGE)
        found.setdefault(role.strip(), []).extend(name.strip() for name in names.split(","))
    return found or None


def refuse_idle(where: str, **options: object) -> None:
    """Refuse options that were given, which is all but None, and would do nothing."""
    if given := [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]:
        fail(f"{', '.join(given)}: of no use {where}", USAGE)


def conclude(session: Any, strict: bool) -> None:
    """Print the summary; exit as an error of the source has it, or 4 when asked to and frames were set aside."""
    summary = session.summary()
    for key, value in summary.items():
        if value not in (None, {}, False):
            typer.echo(f"{key:18} {_plain(value)}")
    if session.output is not None:
        typer.echo(f"{'written':18} {session.output.folder}/")
    if session.failure is not None:
        with told():
            raise session.failure
    if strict and summary["frames_set_aside"]:
        raise typer.Exit(SET_ASIDE)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)


@contextmanager
def told() -> Iterator[None]:
    """One clear line and the exit code for what a user can mend."""
    from ...adapters.errors import EndpointUnreachable
    from ...agent.types import InputError
    from ..embedded import BeamlineFailed
    from ..session import SourceFailed

    try:
        yield
    except EndpointUnreachable as e:
        fail(str(e), UNREACHABLE)
    except InputError as e:
        fail(str(e), USAGE)
    except (BeamlineFailed, SourceFailed) as e:
        fail(str(e), FAILED)


def fail(message: str, code: int) -> NoReturn:
    typer.echo(f"xas-agent: {message}", err=True)
    raise typer.Exit(code)
