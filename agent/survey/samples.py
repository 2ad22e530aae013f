"""Finds the samples that runs name, and other metadata keys that may name them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..fields import SeriesSettings, read_scan, read_text
from ..types import RunInfo

_WORDS = (frozenset({"sample", "smpl", "specimen"}), frozenset({"label", "title", "material", "compound"}))
"""Words in keys of sample names, the likeliest first."""
_OTHER = frozenset(
    ("uid", "env", "environment", "holder", "position", "pos", "stage", "temperature", "type", "owner", "comment")
)
"""Words in keys of other properties of a sample."""
_NAMES = frozenset({"name", "id", "title", "label"})
"""Keys that name the object that holds them."""
_LONGEST = 80
"""Largest length of a text that may be a name, in characters."""


@dataclass(frozen=True, slots=True)
class SamplesFound:
    """How the runs name their samples."""

    names: tuple[str, ...]
    """Samples that the agent reads with the settings."""
    unnamed: int
    """Number of runs without a sample name; each forms its own series."""
    key: str
    """Another dotted key of the RunStarts that may name the sample; empty if there is none or none is needed."""
    values: tuple[str, ...]
    """Values of this key."""


def find_samples(runs: Sequence[RunInfo], settings: SeriesSettings) -> SamplesFound:
    """Find the samples of runs, and a key that may name the sample of runs without one.

    A key is sought only if no run names a sample. A key whose text differs in each of several runs is rejected.

    >>> starts = [{"uid": uid, "expt": {"label": "LCO 3"}, "operator": "ada"} for uid in "ab"]
    >>> find_samples([RunInfo(start["uid"], start) for start in starts], SeriesSettings())
    SamplesFound(names=(), unnamed=2, key='expt.label', values=('LCO 3',))
    """
    named = [read_scan(run.start, settings).series for run in runs]
    names = tuple(dict.fromkeys(filter(None, named)))
    starts = [] if names else [run.start for run in runs]
    likely: list[tuple[int, str, tuple[str, ...]]] = []
    for key, rank in dict(ranked for start in starts for ranked in _ranked(start)).items():
        values = [text for start in starts if (text := read_text(start, [key]))]
        distinct = tuple(dict.fromkeys(values))
        if len(values) == len(starts) and (len(distinct) < len(values) or len(values) == 1):
            likely.append((rank, key, distinct))
    _, key, values = min(likely, default=(0, "", ()))
    return SamplesFound(names, named.count(""), key, values)


def _ranked(metadata: Mapping[str, Any], holder: str = "") -> Iterator[tuple[str, int]]:
    """Yield the dotted keys of texts that may name a sample, each with its rank, down to the second level."""
    for key, value in metadata.items():
        if isinstance(value, Mapping) and not holder:
            yield from _ranked(value, str(key))
        elif isinstance(value, str) and 0 < len(value.strip()) <= _LONGEST:
            words = _words_of(key)
            words = words | _words_of(holder) if words & _NAMES else words
            rank = next((k for k, known in enumerate(_WORDS) if words & known), None)
            if rank is not None and not words & _OTHER:
                yield f"{holder}.{key}" if holder else key, rank


def _words_of(key: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()))
