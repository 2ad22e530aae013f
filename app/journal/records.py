"""Documents, texts and numbers in the form in which a journal stores them."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ...adapters.codecs import from_msgpack, to_json, to_msgpack


def packed(value: Any) -> bytes:
    """Return a document or state as bytes.

    Raises
    ------
    TypeError, ValueError, RecursionError
        It cannot be converted.
    """
    try:
        return to_msgpack(value)
    except (TypeError, ValueError, OverflowError):
        return to_json(value).encode()  # for integers of any size, and texts that are not UTF-8


def last_seq_num(name: str, doc: Mapping[str, Any]) -> int | None:
    """Return the number of an Event, or the highest one of a page; None for other documents."""
    found = doc.get("seq_num") if isinstance(doc, Mapping) else None
    numbers = [found] if name == "event" else found if name == "event_page" and isinstance(found, list) else ()
    return max((n for n in numbers if type(n) is int and 0 <= n < 2**63), default=None)


def as_text(text: str) -> str:
    """Return a text that SQLite can store: JSON can contain half characters (surrogates), which UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode()


@lru_cache(maxsize=1000)
def key_as_text(key: tuple[str | None, ...]) -> str:
    """Return the key of a state as a text for SQLite."""
    return to_json(key)


def unpacked(record: bytes) -> Any:
    """Return the document or state that :func:`packed` converted."""
    # All packed documents and states are maps and lists, which begin with other bytes in msgpack.
    return json.loads(record) if record[:1] in (b"{", b"[") else from_msgpack(record)
