"""Unpacks documents that hold several Events or Datums."""

from collections.abc import Iterator
from typing import Any


def unpack_events(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the Events of a page; raise ValueError for columns of different lengths."""
    data, stamps, filled = page["data"], page["timestamps"], page.get("filled") or {}
    columns = page["uid"], page["time"], page["seq_num"]
    lengths = {len(column) for column in (*columns, *data.values())}
    if len(lengths) != 1:
        named = {"uid": columns[0], "time": columns[1], "seq_num": columns[2], **data}
        counts = ", ".join(f"{name} {len(column)}" for name, column in named.items())
        raise ValueError(f"columns of different lengths: {counts}")
    for i, (uid, time, seq_num) in enumerate(zip(*columns, strict=True)):
        yield {
            "descriptor": page["descriptor"],
            "uid": uid,
            "time": time,
            "seq_num": seq_num,
            "data": {key: column[i] for key, column in data.items()},
            "timestamps": {key: column[i] for key, column in stamps.items() if i < len(column)},
            "filled": {key: column[i] for key, column in filled.items() if i < len(column)},
        }


def unpack_datums(name: str, doc: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the Datums of a ``datum_page``, or of a ``bulk_datum``, the form before DatumPages."""
    from event_model import bulk_datum_to_datum_page, unpack_datum_page

    page = bulk_datum_to_datum_page(doc) if name == "bulk_datum" else doc
    return [dict(datum) for datum in unpack_datum_page(page)]  # type: ignore[arg-type]
