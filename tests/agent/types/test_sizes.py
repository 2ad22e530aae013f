from collections import UserDict
from collections.abc import ValuesView

import numpy as np

from xas_agent.agent.types import size_of


class _InItself(UserDict[str, object]):
    """A mapping that contains itself."""

    looked_at = 0

    def values(self) -> ValuesView[object]:
        self.looked_at += 1
        return super().values()


def test_a_document_that_contains_itself_is_measured_once() -> None:
    loop = _InItself()
    loop["again"] = loop
    assert size_of(loop) < 1000
    assert loop.looked_at < 10_000


def test_each_of_many_parts_counts() -> None:
    assert size_of([[0.5, np.zeros(10)] for _ in range(10_000)]) > 10_000 * (80 + 2 * 64)
