"""Tables of settings in Markdown: the keys of every group with type, default, unit and meaning."""

import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from xas_agent.agent.types import Settings, described_fields
from xas_agent.app.jobs.keys import (
    KEY_COLUMNS,
    bounds,
    default_of,
    groups,
    is_mapping,
    triggers,
    type_name,
    unit_of,
)


def cell(text: str) -> str:
    """A table cell: RST's double backticks become Markdown's, lines become one."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell(c) for c in cells)} |"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join([_row(*head), "|" + " --- |" * len(head), *(_row(*row) for row in rows)])


def keys(
    model: type[Settings], prefix: str = "", elsewhere: tuple[type[Settings], ...] = ()
) -> Iterator[tuple[str, FieldInfo, type[Settings]]]:
    """Every key of a model with its dotted path, groups included, depth first; not those of groups ``elsewhere``."""
    for name, field in described_fields(model).items():
        path = f"{prefix}{field.alias or name}"
        yield path, field, model
        listed = "[]" if get_origin(field.annotation) is tuple else ".NAME" if is_mapping(field.annotation) else ""
        for group in groups(field.annotation):
            if group not in elsewhere:
                yield from keys(group, f"{path}{listed}.", elsewhere)


def config_table(model: type[Settings], elsewhere: tuple[type[Settings], ...] = ()) -> str:
    """One section per group, with a table of its keys."""
    sections: dict[str, tuple[type[Settings], list[tuple[str, ...]]]] = {}
    for path, field, owner in keys(model, elsewhere=elsewhere):
        group = path.rpartition(".")[0]
        title = group
        kind = owner.model_fields.get("kind")
        choice = get_args(kind.annotation)[0] if kind is not None and get_args(kind.annotation) else ""
        title = f"{group} ({choice})" if choice else group
        row = (
            f"`{path.rpartition('.')[2]}`",
            type_name(field.annotation) + bounds(field),
            default_of(field),
            unit_of(path),
            field.description or "",
        )
        sections.setdefault(title, (owner, []))[1].append(row)
    parts = []
    for title, (owner, rows) in sections.items():
        if title:
            parts.append(f"### `{title}`")
        about = " ".join((owner.__doc__ or "").partition("\n\n")[0].split()).replace("``", "`")
        parts += [re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", about)]
        parts.append(table(KEY_COLUMNS, rows))
    return "\n\n".join(parts)


def rule_triggers() -> str:
    """Every trigger with its keys, its own ones first."""
    parts = []
    for kind, about, rows in triggers():
        parts += [f"### `{kind}`", about, table(KEY_COLUMNS, [(f"`{name}`", *rest) for name, *rest in rows])]
    return "\n\n".join(parts)


def robot_actions() -> str:
    """Every request of a robot with its arguments."""
    from xas_agent.adapters.robot import REQUESTS

    parts = []
    for request in REQUESTS:
        action = get_args(request.model_fields["action"].annotation)[0]
        args: Any = request.model_fields["args"].annotation
        rows = [
            (f"`{n}`", type_name(f.annotation) + bounds(f), default_of(f), f.description or "")
            for n, f in described_fields(args).items()
        ]
        parts += [f"### `{action}`", " ".join((args.__doc__ or "").split())]
        parts += [table(("Argument", "Type", "Default", "Meaning"), rows)] if rows else ["No arguments."]
    return "\n\n".join(parts)


def robot_status() -> str:
    """The keys of a robot's answer and of its status."""
    from xas_agent.adapters.robot import ANSWERS

    parts = []
    for model in ANSWERS:
        rows = [
            (f"`{n}`", type_name(f.annotation) + bounds(f), default_of(f), f.description or "")
            for n, f in described_fields(model).items()
        ]
        parts += [f"### `{model.__name__}`", model.__doc__ or "", table(("Key", "Type", "Default", "Meaning"), rows)]
    return "\n\n".join(parts)
