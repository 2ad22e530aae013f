"""Unpacks documents that hold several Events or Datums."""

from collections.abc import Iterator
from typing import Any


def unpack_events(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the Events of a page; raise ValueError for columns of different lengths."""
    from event_model import unpack_event_page  # it takes 0.2 s to import

    lengths = {len(page[key]) for key in ("uid", "time", "seq_num")} | {len(v) for v in page["data"].values()}
    if len(lengths) != 1:
        raise ValueError(f"columns of different lengths {sorted(lengths)}")
    for event in unpack_event_page(page):  # type: ignore[arg-type]
        yield dict(event)


def unpack_datums(name: str, doc: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the Datums of a ``datum_page``, or of a ``bulk_datum``, the form before DatumPages."""
    from event_model import bulk_datum_to_datum_page, unpack_datum_page

    page = bulk_datum_to_datum_page(doc) if name == "bulk_datum" else doc
    return [dict(datum) for datum in unpack_datum_page(page)]  # type: ignore[arg-type]
