"""Tables of settings in Markdown: the keys of every group with type, default, unit and meaning."""

import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from xas_agent.agent.decide import Trigger
from xas_agent.agent.types import Settings
from xas_agent.agent.types.reasons import Reason

UNITS = {
    "_ev": "eV",
    "_s": "s",
    "_ps": "ps",
    "_fs": "fs",
    "_ms": "ms",
    "_deg": "degrees",
    "_mb": "MB",
    "_ang": "Å",
    "_a": "Å",
}
"""Unit of a key by the end of its name; design: a name carries its unit where it could be doubted."""
KEY_UNITS = {"nvict": "", "alpha": "", "k_max": "1/Å", "k_step": "1/Å", "sha256": "", "seconds": "s"}
KEY_UNITS |= dict.fromkeys(("e0", "pre1", "pre2", "norm1", "norm2"), "eV")
KEY_UNITS |= {"melt_k": "K", "final_k": "K", "density_g_cm3": "g/cm³", "friction_per_ps": "1/ps"}
KEY_UNITS |= {"pre_slope": "edge steps/eV", "post_slope": "edge steps/eV", "post_curvature": "edge steps/eV²"}


def cell(text: str) -> str:
    """A table cell: RST's double backticks become Markdown's, lines become one."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell(c) for c in cells)} |"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join([_row(*head), "|" + " --- |" * len(head), *(_row(*row) for row in rows)])


def groups(annotation: Any) -> list[type[Settings]]:
    """The groups of settings within an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [group for part in get_args(annotation) for group in groups(part)]


TRIGGERS = tuple(groups(Trigger))
"""The triggers, which have a table of their own; a combination contains triggers, so that their keys have no end."""


def keys(
    model: type[Settings], prefix: str = "", elsewhere: tuple[type[Settings], ...] = ()
) -> Iterator[tuple[str, FieldInfo, type[Settings]]]:
    """Every key of a model with its dotted path, groups included, depth first; not those of groups ``elsewhere``."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        yield path, field, model
        listed = "[]" if get_origin(field.annotation) is tuple else ".NAME" if _is_mapping(field.annotation) else ""
        for group in groups(field.annotation):
            if group not in elsewhere:
                yield from keys(group, f"{path}{listed}.", elsewhere)


def _is_mapping(annotation: Any) -> bool:
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, typing.Mapping)


def type_name(annotation: Any) -> str:
    """A type as a user of YAML knows it."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return type_name(args[0])
    if args == TRIGGERS:
        return "[trigger](rules.md#triggers)"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(a) for a in args if a is not type(None))
    if origin is list:
        return f"{type_name(args[0])}, repeatable"
    if origin is tuple:
        inner = type_name(args[0])
        return f"list of {inner}" if args[-1] is Ellipsis else f"{len(args)} × {inner}"
    if isinstance(origin, type) and issubclass(origin, typing.Mapping):
        return f"mapping of {type_name(args[0])} to {type_name(args[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return "group"
    names = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "any"}
    names[Reason] = "[reason](reasons.md#reasons)"
    return names.get(annotation, "path" if "Path" in str(annotation) else getattr(annotation, "__name__", "any"))


def default_of(field: FieldInfo) -> str:
    """A default as YAML writes it."""
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "unset"
    if value == "":
        return "empty"
    if isinstance(value, Settings):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, dict):
        inner = ", ".join(f"{k}: {v}" for k, v in value.items() if not isinstance(v, Settings))
        return f"`{{{inner}}}`"
    return f"`{value}`"


def unit_of(path: str) -> str:
    """The unit that the end of a key's name states."""
    name = path.rpartition(".")[2]
    if name in KEY_UNITS:
        return KEY_UNITS[name]
    return next((unit for end, unit in UNITS.items() if name.endswith(end)), "")


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "at least"}
    found = [
        f"{s} {getattr(m, n)}" for m in field.metadata for n, s in signs.items() if getattr(m, n, None) is not None
    ]
    return f", {', '.join(found)}" if found else ""


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
            type_name(field.annotation) + _bounds(field),
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
        parts.append(table(("Key", "Type", "Default", "Unit", "Meaning"), rows))
    return "\n\n".join(parts)


def rule_triggers() -> str:
    """Every trigger with its keys, its own ones first."""
    parts = []
    for group in TRIGGERS:
        kind = group.model_fields["kind"].default
        rows = [
            (f"`{n}`", type_name(f.annotation) + _bounds(f), default_of(f), unit_of(n), f.description or "")
            for n, f in sorted(group.model_fields.items(), key=lambda item: item[0] not in group.__annotations__)
        ]
        about = "\n".join(line.strip() for line in (group.__doc__ or "").splitlines())
        parts += [f"### `{kind}`", about, table(("Key", "Type", "Default", "Unit", "Meaning"), rows)]
    return "\n\n".join(parts)


def robot_actions() -> str:
    """Every request of a robot with its arguments."""
    from xas_agent.adapters.robot import REQUESTS

    parts = []
    for request in REQUESTS:
        action = get_args(request.model_fields["action"].annotation)[0]
        args: Any = request.model_fields["args"].annotation
        rows = [
            (f"`{n}`", type_name(f.annotation) + _bounds(f), default_of(f), f.description or "")
            for n, f in args.model_fields.items()
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
            (f"`{n}`", type_name(f.annotation) + _bounds(f), default_of(f), f.description or "")
            for n, f in model.model_fields.items()
        ]
        parts += [f"### `{model.__name__}`", model.__doc__ or "", table(("Key", "Type", "Default", "Meaning"), rows)]
    return "\n\n".join(parts)
