"""A source that several agents share, and that keeps what it is told, for tests."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any


class Source:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.position: dict[str, Any] = {}
        self.age_s = 0.0
        self.takeovers = 0
        self.given_up: list[str] = []
        self.told: list[tuple[dict[str, Any], list[str]]] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def handing_over(self) -> None: ...

    def holds(self, run: str) -> bool:
        return True

    def is_current(self, position: Mapping[str, Any]) -> bool:
        return True

    def take_given_up(self) -> list[str]:
        given_up, self.given_up = self.given_up, []
        return given_up

    def close(self) -> None: ...
    def release(self) -> None: ...
    def resume(self, position: Mapping[str, Any]) -> None: ...

    def acknowledge(self, position: Mapping[str, Any], ended: Collection[str]) -> None:
        self.told.append((dict(position), list(ended)))
