"""Which documents of a run have come, whatever their order."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from xas_agent.adapters.tiled.account import RunAccount, Series

START = {"uid": "run", "time": 1.0}
DESCRIPTOR = {"uid": "d", "run_start": "run", "name": "primary"}


def event(number: int, time: float = 0.0) -> dict[str, Any]:
    return {"uid": f"e{number}", "descriptor": "d", "seq_num": number, "time": time or float(number)}


def account(*numbers: int) -> RunAccount:
    made = RunAccount("run")
    made.add("start", START)
    made.add("descriptor", DESCRIPTOR)
    for number in numbers:
        made.add("event", event(number))
    return made


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_size=30))
def test_a_series_is_the_set_of_its_numbers(ranges: list[tuple[int, int]]) -> None:
    series, numbers = Series(), set[int]()
    for first, more in ranges:
        new = set(range(first, first + more + 1))
        assert series.add(first, first + more) == (not new <= numbers)
        numbers |= new
        missing = set(range(1, series.next)) - numbers
        assert series.next == max(numbers) + 1
        assert missing == {n for a, b in series.holes for n in range(a, b + 1)}
        assert series.complete_to == min(missing, default=series.next) - 1


@given(st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)))
def test_what_is_filled_is_what_had_not_come(live: set[int], lost: set[int]) -> None:
    filled = account(*live)
    assert {n for n in lost if filled.fill("event", event(n)) is not None} == lost - live
    again = RunAccount.of("run", filled.state())
    assert again == filled
    assert all(not again.fill("event", event(n)) for n in lost)


def test_lost_numbers_are_missed_by_the_next_event_and_by_the_stop() -> None:
    some = account(1, 2, 4)
    assert some.missing_before("event", event(5)) == {}, "a hole is missed once"
    assert some.missing_before("event", event(8)) == {"primary": 7}
    assert some.missing_before("event_page", {"descriptor": "d", "seq_num": [7, 6]}) == {"primary": 5}
    assert some.missing_before("stop", {"num_events": {"primary": 4, "other": 9}}) == {"primary": 4}
    assert account(1, 2).missing_before("stop", {"num_events": {"primary": 2}}) == {}
    assert some.reaches([("event", event(3))], {"primary": 4})
    assert not some.reaches([("event", event(5))], {"primary": 4})


def test_an_event_that_is_measured_again_is_no_repetition() -> None:
    some = account(1)
    assert some.fill("event", event(2, time=2.0))
    assert some.was_filled("event", event(2, time=2.0))
    assert not some.was_filled("event", event(2, time=3.0)), "the engine went back to a checkpoint"
    assert not some.was_filled("event", event(3))


def test_one_datum_of_all_rows_gives_the_new_ones() -> None:
    def rows(start: int, stop: int, uid: str = "live") -> dict[str, Any]:
        ranges = {"indices": {"start": start, "stop": stop}, "seq_nums": {"start": start + 1, "stop": stop + 1}}
        return {"uid": "rows", "descriptor": "d", "stream_resource": uid, **ranges}

    some = account()
    for uid in ("live", "catalogue"):
        some.add("stream_resource", {"uid": uid, "run_start": "run", "data_key": "mu"})
    some.add("stream_datum", rows(0, 3))
    assert some.missing_before("stream_datum", rows(5, 6)) == {"primary/mu": 5}
    new = some.fill("stream_datum", rows(0, 6, "catalogue"))
    assert new is not None
    assert (new["indices"], new["seq_nums"]) == ({"start": 3, "stop": 6}, {"start": 4, "stop": 7})
    assert some.fill("stream_datum", rows(0, 6, "catalogue")) is None
    assert some.was_filled("stream_datum", rows(5, 6))
