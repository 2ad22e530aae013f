"""Lines of ``xas-agent``, given to its parser without running them."""

from collections.abc import Iterator, Sequence
from typing import Any

import typer

from xas_agent.cli import app


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", {})
    if name and not inner:
        yield name, command
    for child, member in inner.items():
        yield from _walk(f"{name} {child}".strip(), member)


COMMANDS: dict[str, Any] = dict(_walk("", typer.main.get_command(app)))
"""Every command that does something, by its words."""


def parsed(words: Sequence[str]) -> dict[str, Any]:
    """The parameters of a line without its program; an unknown command, option or value is an error."""
    name = next(name for name in COMMANDS if list(words[: len(name.split())]) == name.split())
    return COMMANDS[name].make_context(name, list(words[len(name.split()) :])).params
