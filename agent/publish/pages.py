"""Events of frames that come fast, together as EventPages."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ..types import Frame

Pages = Literal["auto", "always", "never"]
PAGES_ABOVE_HZ = 50.0
"""Rate of frames above which ``auto`` publishes pages, 1/s."""


def come_in_pages(frames: Sequence[Frame], pages: Pages) -> bool:
    """Whether frames that are served together are published as pages.

    Parameters
    ----------
    frames : in the order of their arrival
    pages : ``auto``: if they arrived at more than ``PAGES_ABOVE_HZ``, as the frames of one page do
    """
    if pages != "auto" or len(frames) < 2:
        return pages == "always"
    return len(frames) - 1 > PAGES_ABOVE_HZ * abs(frames[-1].received - frames[0].received)


class PageRows:
    """The Events of one Descriptor that become a page."""

    def __init__(self, descriptor: str, names: Sequence[str]) -> None:
        self._descriptor, self._names = descriptor, names
        self._rows: list[Sequence[Any]] = []
        self._uids: list[str] = []
        self._numbers: list[int] = []
        self._times: list[float] = []

    def add(self, uid: str, seq_num: int, time: float, values: Sequence[Any]) -> None:
        """Add an Event with its values in the order of the names."""
        self._rows.append(values)
        self._uids.append(uid)
        self._numbers.append(seq_num)
        self._times.append(time)

    def page(self) -> dict[str, Any]:
        """Return the EventPage; columns of numbers are float64 arrays, (N,) or (N, …), the others lists."""
        times = np.array(self._times)
        columns = [_column(column) for column in zip(*self._rows, strict=True)]
        return {
            "descriptor": self._descriptor,
            "uid": self._uids,
            "time": self._times,
            "seq_num": self._numbers,
            "data": dict(zip(self._names, columns, strict=True)),
            "timestamps": dict.fromkeys(self._names, times),
            "filled": {},
        }


def _column(values: tuple[Any, ...]) -> Any:
    first = values[0]
    if isinstance(first, np.ndarray):
        return np.stack(values)
    return np.array(values) if isinstance(first, float) else list(values)


def events_of(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the Events of a page of the agent, as they are published without pages."""
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


def _values(column: Any) -> Any:
    return column.tolist() if isinstance(column, np.ndarray) and column.ndim == 1 else column
