"""Documents against event-model's schemas, which see no number and no uid: one of those alike but for these."""

import re
from collections.abc import Hashable, Mapping
from typing import Any

import event_model
import numpy as np

UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def check_document(name: str, doc: Mapping[str, Any]) -> None:
    """Check a document of this name, which must be valid."""
    event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)


class Remembering:
    """A validator that looks once at documents that are alike to it."""

    def __init__(self, validator: Any) -> None:
        self.schema = validator.schema
        self._validator = validator
        self._valid: set[Hashable] = set()

    def validate(self, doc: Mapping[str, Any]) -> None:
        seen = what_schemas_see(doc)
        if seen not in self._valid:
            self._validator.validate(doc)
            self._valid.add(seen)


def remember_what_is_valid() -> None:
    """Let event-model, which checks what it composes, look once at documents that are alike to it."""
    validators: dict[Any, Any] = event_model.schema_validators
    validators.update({name: Remembering(validator) for name, validator in validators.items()})


def what_schemas_see(value: Any) -> Hashable:
    """Return a document or a part of it with only the types of its numbers and arrays, and one uid for all."""
    if isinstance(value, Mapping):
        return type(value), tuple((key, what_schemas_see(part)) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(what_schemas_see, value))
    if isinstance(value, str):
        return type(value), "uid" if UID.fullmatch(value) else str.__str__(value)
    if isinstance(value, float):
        return type(value), value.is_integer()
    if isinstance(value, np.ndarray):
        return type(value), value.dtype.str, value.shape
    return value if value is None or isinstance(value, bool) else type(value)
