"""Unpacks documents that hold several Events or Datums."""

from collections.abc import Iterator
from typing import Any


def unpack_events(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the Events of a page; raise ValueError if its columns differ in length."""
    data, stamps, filled = page["data"], page["timestamps"], page.get("filled") or {}
    columns = page["uid"], page["time"], page["seq_num"]
    lengths = {len(column) for column in (*columns, *data.values())}
    if len(lengths) != 1:
        named = {"uid": columns[0], "time": columns[1], "seq_num": columns[2], **data}
        counts = ", ".join(f"{name} {len(column)}" for name, column in named.items())
        raise ValueError(f"columns of different lengths: {counts}")
    rows = (_rows(part, len(columns[0])) for part in (data, stamps, filled))
    for uid, time, seq_num, values, at, read in zip(*columns, *rows, strict=True):
        yield {
            "descriptor": page["descriptor"],
            "uid": uid,
            "time": time,
            "seq_num": seq_num,
            "data": values,
            "timestamps": at,
            "filled": read,
        }


def _rows(columns: dict[str, Any], n: int) -> Iterator[dict[str, Any]]:
    """Yield the values of each of ``n`` rows, by column; a column may be shorter."""
    if columns and all(len(column) == n for column in columns.values()):
        for row in zip(*columns.values(), strict=True):
            yield dict(zip(columns, row, strict=True))
    else:
        for i in range(n):
            yield {key: column[i] for key, column in columns.items() if i < len(column)}


def unpack_datums(name: str, doc: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the Datums of a ``datum_page`` or of its predecessor, a ``bulk_datum``."""
    from event_model import bulk_datum_to_datum_page, unpack_datum_page

    page = bulk_datum_to_datum_page(doc) if name == "bulk_datum" else doc
    return [dict(datum) for datum in unpack_datum_page(page)]  # type: ignore[arg-type]
