"""Documents with numbers of other types than Python's own, in other forms, and streams without Events."""

from typing import Any

import numpy as np
import pytest
from made_runs import AXIS, Made, N, feed, reasons


@pytest.mark.parametrize("number", [int, np.int64, np.float32, str, np.array, lambda n: (n,), lambda n: f"{n}.0"])
def test_a_scan_stopped_early_is_recognised_by_a_number_of_any_type(number: Any) -> None:
    made = Made(num_points=number(2 * N)).sweep().stop()
    made.docs[-1][1]["num_events"] = {"primary": number(N)}
    assert reasons(feed(made.docs)[1]) == {"sweep cut short": 1}
    whole = Made(num_points=number(N)).sweep().stop()
    assert not feed(whole.docs)[1]


@pytest.mark.parametrize("number", [np.int32, np.float64, np.array, lambda n: np.array([n])])
def test_events_numbered_and_dated_by_other_types(number: Any) -> None:
    made = Made().sweep().stop()
    for name, doc in made.docs:
        if name == "event":
            doc |= {"seq_num": number(doc["seq_num"]), "time": number(doc["time"])}
            doc["data"] = {key: number(np.float64(value)) for key, value in doc["data"].items()}
    frames, asides = feed(made.docs)
    assert not asides
    assert frames[0].time == made.docs[-2][1]["time"]
    assert frames[0].energy.size == N


@pytest.mark.parametrize("array", [True, False])
@pytest.mark.parametrize(
    ("field", "convert", "words"),
    [
        ("It", lambda v: np.asarray(v) + 1j, "It are complex"),
        ("I0", lambda v: np.asarray(v).astype("M8[s]"), "I0 are dates"),
        ("It", lambda v: np.asarray(v).astype("m8[s]"), "It are durations"),
        ("I0", lambda v: np.asarray(v).astype(str), "I0 are texts"),
        ("energy", lambda v: np.asarray(v).astype(np.float16), "float16"),
        ("It", lambda v: np.ma.masked_less(v, 1e9), "of it are not finite"),
    ],
)
def test_values_that_are_no_measurements_are_refused(array: bool, field: str, convert: Any, words: str) -> None:
    made = Made().sweep(array=array).stop()
    for name, doc in made.docs:
        if name == "event":
            doc["data"][field] = convert(doc["data"][field])
    frames, (aside,) = feed(made.docs)
    assert not frames
    assert words in aside.detail


def test_bulk_events_are_read() -> None:
    made = Made().sweep().stop()
    events = [doc for name, doc in made.docs if name == "event"]
    bulk: Any = ("bulk_events", {events[0]["descriptor"]: events})
    frames, asides = feed([*(d for d in made.docs if d[0] in ("start", "descriptor")), bulk, made.docs[-1]])
    assert not asides
    np.testing.assert_array_equal(frames[0].energy, AXIS)
    bulk[1]["unknown"] = 3
    assert reasons(feed([*made.docs[:2], bulk, made.docs[-1]])[1]) == {"malformed document": 1}


@pytest.mark.parametrize("array", [True, False])
@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (("start", "descriptor", "stop"), "{all} of stream primary did not arrive"),
        (("start", "stop"), "{all} of stream primary, and its descriptor, did not arrive"),
    ],
)
def test_a_stream_without_events_is_reported(array: bool, kept: tuple[str, ...], said: str) -> None:
    made = Made().sweep(array=array).stop()
    frames, (aside,) = feed([d for d in made.docs if d[0] in kept])
    assert not frames
    assert aside.detail == said.format(all="the only event" if array else f"all {N} events")
    assert aside.reason in ("events lost", "points lost")


def test_a_stream_that_announces_no_events_is_reported() -> None:
    made = Made().sweep().stop()
    docs = [d for d in made.docs if d[0] != "event"]
    docs[-1][1]["num_events"] = {}
    (aside,) = feed(docs)[1]
    assert (aside.reason, aside.detail) == ("too few points", "stream primary has no events")


@pytest.mark.parametrize("negative", [("I0", "It"), ("I0",), ("It",)])
def test_currents_of_negative_polarity_give_the_same_absorption(negative: tuple[str, ...]) -> None:
    made = Made().sweep().stop()
    (expected,) = feed(made.docs)[0]
    for name, doc in made.docs:
        if name == "event":
            doc["data"] |= {key: -doc["data"][key] for key in negative}
    frames, asides = feed(made.docs)
    assert not asides
    np.testing.assert_array_equal(frames[0].mu, expected.mu)


def test_a_clipped_current_of_negative_polarity_is_saturated() -> None:
    made = Made().sweep().stop()
    rng = np.random.default_rng(0)
    for name, doc in made.docs:
        if name == "event":
            doc["data"]["I0"] = -min(1e6 + 1e5 * rng.normal(), 1e6) if doc["data"]["energy"] < 8340 else -1e6
    assert reasons(feed(made.docs)[1]) == {"I0 saturated": 1}


@pytest.mark.parametrize("shape", ["1", 1, [1.0], [np.int64(1)], np.array([]), np.array([1, 1]), None])
def test_shapes_of_any_type_of_number(shape: Any) -> None:
    made = Made().sweep().stop()
    made.docs[1][1]["data_keys"] = {key: {"dtype": "number", "shape": shape} for key in ("energy", "I0", "It")}
    frames, asides = feed(made.docs)
    assert ([frame.energy.size for frame in frames], asides) == ([N], [])


@pytest.mark.parametrize("array", [True, False])
def test_events_of_another_form_than_announced_are_read_as_they_are(array: bool) -> None:
    made = Made().sweep(array=array).sweep(array=array).stop()
    shape: list[int] = [1] if array else []
    keys = {key: {"dtype": "array", "shape": shape} for key in ("energy", "I0", "It")}
    made.docs[1][1]["data_keys"] = keys
    frames, asides = feed(made.docs)
    assert ([frame.energy.size for frame in frames], asides) == ([N, N], [])


def test_numbers_beside_arrays_of_one_number() -> None:
    made = Made().sweep().stop()
    for _, doc in made.docs[2:-1:2]:
        doc["data"] = {key: [value] for key, value in doc["data"].items()}
    frames, asides = feed(made.docs)
    assert ([frame.energy.size for frame in frames], asides) == ([N], [])


@pytest.mark.parametrize("array", [True, False])
def test_a_truth_value_among_numbers_is_refused(array: bool) -> None:
    made = Made().sweep(array=array).stop()
    data = made.docs[-2][1]["data"]
    data["It"] = [*list(data["It"])[:-1], True] if array else True
    frames, (aside,) = feed(made.docs)
    assert not frames
    assert aside.detail == "values of It are partly true or false, expected real numbers"


@pytest.mark.parametrize("array", [True, False])
@pytest.mark.parametrize("unit", [None, "", "(keV)", "kiloelectronvolts"])
def test_energies_in_kev_with_and_without_a_unit(array: bool, unit: str | None) -> None:
    made = Made().sweep(array=array).sweep(array=array, rising=False).stop()
    keys = made.docs[1][1]["data_keys"]
    made.docs[1][1]["data_keys"] = {**keys, "energy": {**keys["energy"], "units": unit}}
    for _, doc in made.docs[2:-1]:
        doc["data"]["energy"] = doc["data"]["energy"] / 1000.0
    frames, asides = feed(made.docs)
    assert not asides
    for frame in frames:
        np.testing.assert_allclose(frame.energy[[0, -1]], AXIS[[0, -1]], atol=1e-6)


def test_bad_events_of_a_stream_are_reported_together() -> None:
    made = Made().sweep().stop()
    for _, doc in made.docs[2:-1]:
        doc["seq_num"] = None
    _, asides = feed(made.docs)
    first, *others = [aside for aside in asides if aside.reason == "malformed document"]
    assert first.detail.startswith("event: TypeError seq_num None")
    assert [aside.detail.split(";")[0] for aside in others] == [f"{N - 1} further"]


@pytest.mark.parametrize("status", ["success", "abort"])
def test_a_run_without_streams_is_reported(status: str) -> None:
    _, (aside,) = feed(Made().stop(status).docs)
    assert aside.detail == f"the run ended ({status}) without a stream of spectra; found nothing"


def test_a_configuration_that_is_no_mapping_is_left_out() -> None:
    made = Made().sweep().stop()
    made.docs[1][1]["configuration"] = {"detector": None, "other": {"data": 5}}
    frames, asides = feed(made.docs)
    assert ([frame.energy.size for frame in frames], asides) == ([N], [])
