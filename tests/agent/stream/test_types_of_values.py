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
        (("start", "descriptor", "stop"), "all {n} events of stream primary did not arrive"),
        (("start", "stop"), "all {n} events of stream primary, and its descriptor, did not arrive"),
    ],
)
def test_a_stream_without_events_is_reported(array: bool, kept: tuple[str, ...], said: str) -> None:
    made = Made().sweep(array=array).stop()
    frames, (aside,) = feed([d for d in made.docs if d[0] in kept])
    assert not frames
    assert aside.detail == said.format(n=1 if array else N)
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
