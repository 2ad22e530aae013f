"""Describes the keys of settings: type, default, unit and meaning."""

import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ...agent.decide import Trigger
from ...agent.types import Reason, Settings, described_fields

KEY_COLUMNS = ("Key", "Type", "Default", "Unit", "Meaning")
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
"""Unit by the suffix of a key's name; by convention, a name states its unit wherever it might be unclear."""
KEY_UNITS = {"nvict": "", "alpha": "", "k_max": "1/Å", "k_step": "1/Å", "sha256": "", "seconds": "s"}
KEY_UNITS |= dict.fromkeys(("e0", "pre1", "pre2", "norm1", "norm2"), "eV")
KEY_UNITS |= {"melt_k": "K", "final_k": "K", "density_g_cm3": "g/cm³", "friction_per_ps": "1/ps"}
KEY_UNITS |= {"pre_slope": "edge steps/eV", "post_slope": "edge steps/eV", "post_curvature": "edge steps/eV²"}


def groups(annotation: Any) -> list[type[Settings]]:
    """Return the groups of settings in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [group for part in get_args(annotation) for group in groups(part)]


TRIGGERS = tuple(groups(Trigger))
"""The triggers; they have their own table, since combinations contain triggers and would never end."""


def is_mapping(annotation: Any) -> bool:
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, typing.Mapping)


def type_name(annotation: Any) -> str:
    """Return the name of a type as users of YAML know it."""
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
    """Return a default as YAML writes it."""
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
    """Return the unit that the suffix of a key's name states."""
    name = path.rpartition(".")[2]
    if name in KEY_UNITS:
        return KEY_UNITS[name]
    return next((unit for end, unit in UNITS.items() if name.endswith(end)), "")


def bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "at least"}
    found = [
        f"{s} {getattr(m, n)}" for m in field.metadata for n, s in signs.items() if getattr(m, n, None) is not None
    ]
    return f", {', '.join(found)}" if found else ""


def triggers() -> Iterator[tuple[str, str, list[tuple[str, ...]]]]:
    """Yield kind, meaning, and rows of :data:`KEY_COLUMNS` (Markdown; own keys first) of every trigger."""
    for group in TRIGGERS:
        rows = [
            (n, type_name(f.annotation) + bounds(f), default_of(f), unit_of(n), f.description or "")
            for n, f in sorted(described_fields(group).items(), key=lambda item: item[0] not in group.__annotations__)
        ]
        about = "\n".join(line.strip() for line in (group.__doc__ or "").splitlines()).strip()
        yield group.model_fields["kind"].default, about, rows


def plain(markdown: str) -> str:
    """Return a text on one line, without the markup of Markdown and reStructuredText.

    >>> plain("[trigger](rules.md#triggers), ``null`` or\\n:class:`Rule`")
    'trigger, null or Rule'
    """
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", re.sub(r"\[(.+?)\]\(.+?\)", r"\1", markdown))
    return " ".join(text.replace("`", "").split())
