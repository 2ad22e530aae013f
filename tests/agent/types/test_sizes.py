from collections import UserDict
from collections.abc import ValuesView

from xas_agent.agent.types import size_of


class _InItself(UserDict[str, object]):
    """A mapping that contains itself."""

    looked_at = 0

    def values(self) -> ValuesView[object]:
        self.looked_at += 1
        return super().values()


def test_a_document_that_contains_itself_is_measured_soon_and_is_larger_than_any_queue() -> None:
    loop = _InItself()
    loop["again"] = loop
    assert size_of(loop) == 2**30
    assert loop.looked_at <= 2**18
