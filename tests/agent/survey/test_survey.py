"""What documents contain: streams, fields and values."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import AXIS, Made

from xas_agent.agent.fields import FieldSettings
from xas_agent.agent.survey import explain, proposed_fields, survey
from xas_agent.agent.survey.streams import MAX_STREAMS


def test_streams_of_all_runs_are_joined_by_name_and_fields() -> None:
    docs = [*Made().sweep().stop().docs, *Made().sweep().sweep(stream="other", T=1.0).stop().docs]
    found = survey(docs, FieldSettings())
    assert [(s.name, s.events, len(s.runs)) for s in found.streams] == [
        ("primary", 2 * AXIS.size, 2),
        ("other", AXIS.size, 1),
    ]
    (energy, *_) = found.streams[0].fields()
    assert (energy.key, energy.points, energy.low, energy.high) == ("energy", 1, AXIS.min(), AXIS.max())


def test_a_whole_spectrum_shows_its_length_and_range() -> None:
    found = survey(Made().sweep(array=True).stop().docs, FieldSettings())
    (energy, *_) = found.streams[0].fields()
    assert (energy.points, energy.low, energy.high) == (AXIS.size, AXIS.min(), AXIS.max())
    assert explain(found.streams[0], FieldSettings()).as_it_is


def test_runs_of_the_agent_are_left_out_and_a_flood_of_streams_is_counted() -> None:
    made = Made(xas_agent=True).sweep().stop()
    other = Made()
    for k in range(MAX_STREAMS + 5):
        other.event(f"s{k}", False, 1.0, 1.0, 1.0)
    found = survey([*made.docs, *other.stop().docs], FieldSettings())
    assert (found.own_runs, len(found.starts), len(found.streams), found.further_streams) == (1, 1, MAX_STREAMS, 5)


VALUES = st.one_of(st.none(), st.text(max_size=3), st.floats(), st.integers(), st.lists(st.floats(), max_size=3))


@given(rows=st.lists(st.dictionaries(st.sampled_from(["energy", "I0", "x"]), VALUES), max_size=15), data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_values_raise(rows: list[dict[str, Any]], data: Any) -> None:
    dtypes = st.sampled_from(["number", "array", "string", "integer"])
    keys = {
        key: {"source": "s", "dtype": data.draw(dtypes), "shape": data.draw(st.sampled_from([[], [3]]))}
        for key in ("energy", "I0", "x")
    }
    docs: list[Any] = [
        ("start", {"uid": "r", "time": 0.0, "motors": data.draw(VALUES), "hints": data.draw(VALUES)}),
        ("descriptor", {"uid": "d", "run_start": "r", "time": 0.0, "name": "primary", "data_keys": keys}),
        *(
            (
                "event",
                {"uid": str(k), "descriptor": "d", "seq_num": k + 1, "time": 0.0, "data": row, "timestamps": {}},
            )
            for k, row in enumerate(rows)
        ),
    ]
    found = survey(docs, FieldSettings())
    for stream in found.streams:
        stream.fields()
        proposed = proposed_fields(explain(stream, FieldSettings()), FieldSettings())
        FieldSettings.model_validate({key: value for key, (value, _) in proposed.items()})


def test_a_beam_that_drifts_is_i0_and_not_the_transmission() -> None:
    made = Made()
    for k, e in enumerate(AXIS.tolist()):
        fall = 1.0 if e > 8333.0 else 0.0
        made.event("primary", False, e, 1e5 * np.exp(-fall), 100.0 + k)
        data = made.docs[-1][1]["data"]
        made.docs[-1][1]["data"] = {"energy": e, "a": 1e6 * (1.0 - 0.02 * fall), "b": data["It"]}
    keys = {key: {"source": "s", "dtype": "number", "shape": []} for key in ("energy", "a", "b")}
    made.docs[1][1]["data_keys"] = keys
    (stream,) = survey(made.stop().docs, FieldSettings()).streams
    roles = explain(stream, FieldSettings()).roles
    assert (roles["i0"].keys, roles["it"].keys) == (("a",), ("b",))
