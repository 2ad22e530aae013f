"""Pipelines that a test leaves open are closed after it: each has threads, which would keep it in memory."""

from collections.abc import Iterator
from typing import Any

import pytest

from xas_agent.agent.decide.dispatch import Dispatcher


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[Dispatcher] = []
    make = Dispatcher.__init__

    def make_and_remember(self: Dispatcher, *args: Any, **keywords: Any) -> None:
        make(self, *args, **keywords)
        made.append(self)

    monkeypatch.setattr(Dispatcher, "__init__", make_and_remember)
    yield
    for dispatcher in made:
        dispatcher.close(timeout=0)
