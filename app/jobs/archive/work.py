"""The division of an archive into pieces of its files and runs, and of the result into parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ....adapters.formats import Columns
from ...config import Config

PART_ROWS = 4000
"""Number of spectra in a part: a multiple of the interval at which the agent renews the energy uncertainty, so that a
part begins where the agent would renew it."""
LEAD_ROWS = 128
"""Number of spectra before a part that are aligned again, without estimates; more than the alignment remembers."""
NAMED = 5
"""Number of files that cannot be read to name in the summary."""
ABOUT = "_backfill.json"
"""File of an output folder with the config, models and size of the parts, which must stay the same."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The input that one worker reads: rows of a table, a file, a file of documents, or a run of a catalogue."""

    kind: Literal["rows", "file", "documents", "run"]
    source: str
    """Absolute path, or URI of the run."""
    state: str = ""
    """Size and modification time of a file, which reveal a change."""
    first: int = 0
    stop: int = 0
    """Range of rows of a table, from ``first`` to before ``stop``."""
    weight: int = 1
    """Expected number of spectra."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the result, with the pieces that hold its spectra."""

    pieces: tuple[Piece, ...]
    lead: tuple[Piece, ...] = ()
    """Pieces before the part that bring the alignment to its state there."""


@dataclass(frozen=True, slots=True)
class Work:
    """Settings shared by all parts of a backfill."""

    config: Config
    folder: str
    """Absolute path of the output folder."""
    theory: bool = False
    columns: Columns | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each model, by name."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Provenance in the metadata of every part."""


@dataclass(frozen=True, slots=True)
class Written:
    """A part that a worker wrote under a temporary name."""

    file: str
    """Name of the file in the output folder."""
    rows: int
    set_aside: Mapping[str, int]
    """Number of rows without an estimate, by reason."""
    refused: Sequence[tuple[str, str]] = ()
    """The first sources that cannot be read, with the reasons."""


class WorkFailed(Exception):  # noqa: N818 - named after the event
    """A part could not be computed; the message states why. A later call computes it again."""
