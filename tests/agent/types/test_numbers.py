"""Numbers of every type that documents contain."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from xas_agent.agent.types.numbers import as_count, as_number, as_numbers

NO_NUMBERS = [
    1j, np.complex64(1), True, np.True_, np.datetime64("2024-01-01"), np.timedelta64(3, "s"), np.ma.masked,
    np.ma.array(3.0, mask=True), [1.0, 2.0], np.arange(2.0), [], None, {}, np.nan, np.inf, 10**400, b"3", object(),
]  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [3, 3.0, np.int16(3), np.uint64(3), np.float16(3), np.float32(3), np.array(3), np.array([3.0]), [3], ((3,),)]
    + [Decimal(3), np.ma.array(3.0, mask=False), np.longdouble(3)],
)  # fmt: skip
def test_numbers_of_any_type(value: Any) -> None:
    assert as_number(value) == as_count(value) == 3


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_other_values_are_no_numbers(value: Any) -> None:
    assert as_number(value, texts=True) is None
    assert as_count(value) is None


def test_texts_are_numbers_only_in_metadata() -> None:
    assert as_number("8333.5") is None
    assert as_number(" 8333.5 ", texts=True) == 8333.5
    assert as_number("8333 eV", texts=True) is None
    assert (as_count("252"), as_count("252.0"), as_count("2.5"), as_count("-3")) == (252, 252, None, None)


def test_arrays_of_real_numbers() -> None:
    masked = np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False])
    for values in (masked, [1.0, None, 3.0], [1, np.ma.masked, 3], [np.ma.array(1), np.ma.array(2, mask=True), 3]):
        np.testing.assert_array_equal(as_numbers(values), [1.0, np.nan, 3.0])
    assert as_numbers([1, Decimal("2.5")]) == pytest.approx([1.0, 2.5])
    for values in (
        [1, 2j],
        ["1", "2"],
        [1.0, "2"],
        np.array(["2024-01-01"], "M8[D]"),
        [True, False],
        [1.0, True],
        [[1.0, 2.0], [3.0, True]],
        [[1, 2], (np.False_, 3)],
        [object()],
    ):
        assert as_numbers(values) is None
