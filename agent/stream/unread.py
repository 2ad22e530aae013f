"""Reports streams that are not read."""

from collections.abc import Iterable, Mapping
from typing import Any

from cachetools import FIFOCache

from ..types import get_logger

MAX_REPORTED = 1000
"""Number of reported streams to remember."""

_log = get_logger()


class UnreadStreams:
    """Logs each stream that is not read once, however many runs have it.

    Parameters
    ----------
    source : source of the documents as the command line names it, if it is known
    """

    def __init__(self, source: str | None = None) -> None:
        self._command = f"xas-agent inspect {source or 'SOURCE'}"
        self._reported: FIFOCache[tuple[str, ...], None] = FIFOCache(MAX_REPORTED)

    def report(self, run: str, stream: str, keys: Iterable[str]) -> None:
        """Log a stream with its fields and the command that proposes settings; log repetitions at level debug."""
        known = (stream, *keys)
        write = _log.debug if known in self._reported else _log.warning
        self._reported[known] = None
        write(
            "stream not read: it has no energy and intensities of known names; name them under fields",
            run=run,
            stream=stream,
            fields=", ".join(known[1:]),
            help=self._command,
        )


def is_of_optimiser(descriptor: Mapping[str, Any]) -> bool:
    """Return whether a stream holds an optimiser's suggestions and results (bluesky-adaptive, blop), no spectra."""
    sources = (str(key.get("source", "")) for key in descriptor["data_keys"].values())
    return any(source.startswith("optimization-") for source in sources)
