"""The base class of all settings, and the functions that read YAML into settings."""

import ast
import inspect
from functools import cache
from pathlib import Path, PurePath
from textwrap import dedent
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError
from pydantic.fields import FieldInfo

from .encoding import UTF_16_MARKS
from .errors import InputError


class Described(BaseModel):
    """A frozen model whose JSON schema describes each field with the docstring under it."""

    model_config = ConfigDict(frozen=True, defer_build=True)  # one process uses few of the models

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, field in described_fields(cls).items():
            for key in {name, field.alias or name} & properties.keys():
                if field.description:
                    properties[key].setdefault("description", field.description)
        return schema


class Settings(Described):
    """A frozen group of settings that rejects unknown keys, NaN and infinite numbers.

    A level of NaN would look like a protection but would never be reached.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


@cache
def described_fields(model: type[Described]) -> dict[str, FieldInfo]:
    """Return the fields of a model, by name, with the docstring under each as its description.

    With ``use_attribute_docstrings``, pydantic would parse the source of all models whenever they are imported.
    """
    model.model_rebuild()  # resolves names that were unknown when the class was created
    for base in reversed(model.__mro__):
        if not issubclass(base, Described) or base in (Described, Settings):
            continue
        (parsed,) = ast.parse(dedent(inspect.getsource(base))).body
        assert isinstance(parsed, ast.ClassDef)
        for field, text in zip(parsed.body, [*parsed.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                about = inspect.cleandoc(str(text.value.value)) if is_text else None  # pyright: ignore
                if (found := model.model_fields.get(field.target.id)) is not None:
                    found.description = about
    return model.model_fields


class ConfigError(InputError):
    """Settings cannot be used; the message states the file, the key, the value found and the values expected."""


S = TypeVar("S", bound=Settings)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's loader if PyYAML has it; it is ten times as fast."""


def read_yaml(path: Path, model: type[S]) -> S:
    """Read a YAML file into a model; an empty file gives the model's defaults.

    Raises
    ------
    ConfigError
            Raised by :func:`read_mapping` and :func:`validate_settings`.
    """
    return validate_settings(read_mapping(path), model, str(path))


def read_mapping(path: Path) -> dict[str, Any]:
    """Read the keys and values of a YAML file; an empty file gives none.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or does not hold a mapping.
    """
    return mapping_of(content_of(path), str(path))


def content_of(path: Path) -> bytes:
    """Read a file of settings.

    Raises
    ------
    ConfigError
        The file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror or e}") from None


def mapping_of(content: bytes, source: str) -> dict[str, Any]:
    """Return the keys and values of YAML; empty content gives none.

    Parameters
    ----------
    source : name of the content in messages, usually its file

    Raises
    ------
    ConfigError
        The content is not YAML, or does not hold a mapping.
    """
    try:
        wide = content.startswith(UTF_16_MARKS)  # as Windows PowerShell writes the output of a command
        found = yaml.load(content.decode("utf-16" if wide else "utf-8"), Loader=_LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        said = " ".join(str(e).split()).replace('in "<unicode string>", line', "in line")
        raise ConfigError(f"{source}: not YAML: {said}") from None
    if found is not None and not isinstance(found, dict):
        raise ConfigError(f"{source}: found {type(found).__name__}, expected a mapping of keys to values")
    return found or {}


def validate_settings(content: dict[str, Any], model: type[S], source: str) -> S:
    """Read a mapping into a model.

    Parameters
    ----------
    source : name of the mapping in messages, usually its file

    Raises
    ------
    ConfigError
            A key is unknown or missing, or a value is not as the model expects.
    """
    try:
        return model.model_validate(content)
    except ValidationError as e:
        raise ConfigError(_explain(e, source, model, content)) from None


def plain_message(message: str) -> str:
    """Return the message of a validation without the prefix that pydantic adds to a validator's message.

    >>> plain_message("Value error, found 3"), plain_message("Field required")
    ('found 3', 'Field required')
    """
    return message.removeprefix("Value error, ")


def _explain(error: ValidationError, source: str, model: type[Settings], content: dict[str, Any]) -> str:
    """Return one line on the first error: file, key, value found and values expected.

    Unknown keys come first, since a misspelt key is also missing under its correct name.
    """
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    key = (key if key.isprintable() else repr(key)) + _of_rule(first["loc"], content)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = ", ".join(_known_keys(model, first["loc"]))
        return f"{source}: unknown key {key}{more}; expected one of {known}"
    if first["type"] == "missing":
        return f"{source}: key {key}: missing{more}"
    if first["type"] == "union_tag_invalid":
        chosen = first.get("ctx", {})  # for example the kind of a trigger
        name = chosen["discriminator"].strip("'")
        found = f"{name} {chosen['tag']!r:.80}"
        return f"{source}: key {key}: found {found}, expected one of {chosen['expected_tags']}{more}"
    expected = plain_message(first["msg"]).removeprefix("Input should be ")
    expected = expected.replace("a valid tuple", "a list, e.g. [co-k]")
    expected = expected.replace("Path does not point to a", "an existing")
    if not key:  # an error of several keys together; the message names them
        return f"{source}: {expected}{more}"
    if expected.startswith("found "):  # the message of a validator
        return f"{source}: key {key}: {expected}{more}"
    if first["type"] == "value_error" and isinstance(first["input"], dict):  # nobody reads a section as a mapping
        return f"{source}: key {key}: expected: {expected}{more}"
    found = str(first["input"]) if isinstance(first["input"], PurePath) else first["input"]
    return f"{source}: key {key}: found {found!r:.80}, expected: {expected}{more}"


def _of_rule(loc: tuple[int | str, ...], content: dict[str, Any]) -> str:
    """Return the name of the rule that holds a key, in brackets; empty for other keys."""
    match loc, content.get("rules"):
        case ["rules", int(number), *_], [*rules] if number < len(rules) and isinstance(rules[number], dict):
            name = rules[number].get("name")
            return f" (rule {name!r:.80})" if isinstance(name, str) else ""
    return ""


def _known_keys(model: type[Settings], loc: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the group that holds an unknown key."""
    groups = [model]
    for part in loc[:-1]:
        inner = [
            g for group in groups if part in group.model_fields for g in _groups(group.model_fields[part].annotation)
        ]
        # A part that is not a field is an index of a list, or the kind that selects one of several groups.
        kind = [g for g in groups if "kind" in g.model_fields and g.model_fields["kind"].default == part]
        groups = inner or kind or groups
    return sorted({field.alias or name for group in groups for name, field in group.model_fields.items()})


def _groups(annotation: Any) -> list[type[Settings]]:
    """Return the groups of settings in an annotation: a single one, those in a tuple, or those in a union."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [group for part in get_args(annotation) for group in _groups(part)]
