"""Readers and stages with simple interfaces for tests."""

from collections.abc import Iterable
from typing import Any

from xas_agent.agent.fields.settings import FieldSettings
from xas_agent.agent.stream.book import Book
from xas_agent.agent.stream.reader import FrameReader
from xas_agent.agent.types.frame import Frame, Received, SetAside
from xas_agent.agent.types.protocols import Stage
from xas_agent.agent.types.run import RunDocument


class Frames:
    """A reader of (name, doc) pairs that returns only frames and notes on unusable data."""

    def __init__(self, *args: Any) -> None:
        self._reader = FrameReader(*args)

    @property
    def waiting(self) -> bool:
        return self._reader.waiting

    def __call__(self, name: str, doc: dict[str, Any], received: float = 0.0) -> list[Frame | SetAside]:
        return self._of(self._reader(Received(name, doc, received)))

    def settle(self) -> list[Frame | SetAside]:
        return self._of(self._reader.settle())

    def flush(self) -> list[Frame | SetAside]:
        return self._of(self._reader.finish())

    @staticmethod
    def _of(outcomes: Iterable[Any]) -> list[Frame | SetAside]:
        return [item for item in outcomes if isinstance(item, Frame | SetAside)]


class Staged:
    """A book and one stage that return documents, without empty starts and stops."""

    def __init__(self, stage: Stage, fields: FieldSettings | None = None) -> None:
        self._book, self._stage = Book(fields or FieldSettings(), lambda name: name != "baseline"), stage

    @property
    def waiting(self) -> bool:
        return self._book.waiting or self._stage.waiting

    def __call__(self, document: Received) -> list[Received | SetAside]:
        return self._through(self._book(document))

    def poll(self, now: float) -> list[Received | SetAside]:
        return self._through(self._book.poll(now)) + self._plain(self._stage.poll(now))

    def finish(self) -> list[Received | SetAside]:
        return self._through(self._book.finish()) + self._plain(self._stage.finish())

    def _through(self, items: Iterable[RunDocument | SetAside]) -> list[Received | SetAside]:
        return self._plain(o for i in items for o in (self._stage(i) if isinstance(i, RunDocument) else (i,)))

    @staticmethod
    def _plain(items: Iterable[RunDocument | SetAside]) -> list[Received | SetAside]:
        return [i if isinstance(i, SetAside) else Received(i.name, i.doc, i.at) for i in items if not _is_empty(i)]


def _is_empty(item: RunDocument | SetAside) -> bool:
    return isinstance(item, RunDocument) and not item.doc
