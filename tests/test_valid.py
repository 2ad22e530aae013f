"""What the check of documents may leave out."""

import uuid
from typing import Any

import event_model
import numpy as np
import pytest
from jsonschema import ValidationError
from valid import check_document, what_schemas_see

KEYWORDS = {
    "$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "default", "description", "enum", "items",
    "maxItems", "minItems", "pattern", "patternProperties", "prefixItems", "properties", "required", "title", "type",
    "unevaluatedProperties",
}  # fmt: skip


def event(**changes: Any) -> dict[str, Any]:
    uid, descriptor = str(uuid.uuid4()), str(uuid.uuid4())
    event = {"uid": uid, "descriptor": descriptor, "seq_num": 1, "time": 0.5, "data": {"mu": np.ones(3)}}
    return {**event, "timestamps": {"mu": 0.5}, "filled": {}} | changes


def keywords(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(keywords, schema))
    if not isinstance(schema, dict):
        return set()
    named = {"$defs", "properties", "patternProperties"}
    parts = [part for key, part in schema.items() if key not in named]
    parts += [part for key in named & schema.keys() for part in schema[key].values()]
    return set(schema).union(*map(keywords, parts))


def test_no_schema_sees_the_size_of_a_number():
    found = set().union(*(keywords(validator.schema) for validator in event_model.schema_validators.values()))
    assert found <= KEYWORDS


def test_other_numbers_and_uids_are_seen_alike():
    assert what_schemas_see(event()) == what_schemas_see(event(seq_num=7, time=1.25, data={"mu": np.zeros(3)}))


@pytest.mark.parametrize(
    "change",
    [
        {"seq_num": 1.5},
        {"seq_num": "1"},
        {"seq_num": np.int64(1)},
        {"uid": np.datetime64(0, "s")},
        {"time": "now"},
        {"time": np.ones(3)},
        {"uid": 3},
        {"filled": {"mu": 1}},
        {"data": [1.0]},
        {"extra": 1},
    ],
)
def test_a_document_that_is_wrong_is_found_after_one_like_it(change):
    check_document("event", event())
    for _ in range(2):
        with pytest.raises(ValidationError):
            check_document("event", event(**change))
