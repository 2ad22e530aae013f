"""EventPages for the Events of frames that arrive fast."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ..types import Frame

Pages = Literal["auto", "always", "never"]
PAGES_ABOVE_HZ = 50.0
"""Rate of frames above which ``auto`` publishes pages, Hz."""


def come_in_pages(frames: Sequence[Frame], pages: Pages) -> bool:
    """Return whether frames that are served together are published as pages.

    Parameters
    ----------
    frames : frames in the order of their arrival
    pages : ``auto`` publishes pages if the frames arrived at more than ``PAGES_ABOVE_HZ``, as those of one page do
    """
    if pages != "auto" or len(frames) < 2:
        return pages == "always"
    return len(frames) - 1 > PAGES_ABOVE_HZ * abs(frames[-1].received - frames[0].received)


def new_uids(number: int) -> list[str]:
    """Return random UUIDs (version 4); to make many at once takes a tenth of the time.

    >>> import uuid
    >>> [(uuid.UUID(uid).version, uuid.UUID(uid).variant) for uid in new_uids(1)]
    [(4, 'specified in RFC 4122')]
    """
    digits = os.urandom(16 * number).hex()
    found = (digits[k : k + 32] for k in range(0, len(digits), 32))
    return [f"{d[:8]}-{d[8:12]}-4{d[13:16]}-{'89ab'[int(d[16], 16) % 4]}{d[17:20]}-{d[20:]}" for d in found]


def page_of(descriptor: str, columns: Mapping[str, Any], first: int, times: Sequence[float]) -> dict[str, Any]:
    """Return an EventPage of N Events with new uids.

    Its arrays are read-only, since the agent and other subscribers still read the numbers in them.

    Parameters
    ----------
    columns : N values by data key; numbers are float64 arrays, (N,) or (N, …), other values lists
    first : ``seq_num`` of the first Event
    """
    stamps = np.array(times)
    return {
        "descriptor": descriptor,
        "uid": new_uids(len(times)),
        "time": [*times],
        "seq_num": [*range(first, first + len(times))],
        "data": {key: _read_only(column) for key, column in columns.items()},
        "timestamps": dict.fromkeys(columns, stamps),
        "filled": {},
    }


def events_of(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the Events of an agent's page as they would be published without pages."""
    data = {key: _values(column) for key, column in page["data"].items()}
    for i, (uid, time, seq_num) in enumerate(zip(page["uid"], page["time"], page["seq_num"], strict=True)):
        yield {
            "uid": uid,
            "time": time,
            "data": {key: column[i] for key, column in data.items()},
            "timestamps": dict.fromkeys(data, time),
            "seq_num": seq_num,
            "filled": {},
            "descriptor": page["descriptor"],
        }


def _read_only(column: Any) -> Any:
    if isinstance(column, np.ndarray):
        column = column.view()
        column.flags.writeable = False
    return column


def _values(column: Any) -> Any:
    if not isinstance(column, np.ndarray):
        return column
    return column.tolist() if column.ndim == 1 else [row.copy() for row in column]  # copies keep no page in memory
