"""What an archive is divided into: pieces of its files and runs, and parts of the result."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ....adapters.formats import Columns
from ...config import Config

PART_ROWS = 4000
"""Number of spectra of a part: a multiple of the interval at which the agent computes the energy uncertainty anew, so
that a part begins where the agent would."""
LEAD_ROWS = 128
"""Number of spectra before a part that are aligned again, without estimates: more than the alignment remembers."""
ABOUT = "_backfill.json"
"""File of an output folder with what must be the same for a backfill to go on: config, models, size of the parts."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one worker reads: rows of a table, a file, a file of documents, or a run of a catalogue."""

    kind: Literal["rows", "file", "documents", "run"]
    source: str
    """Absolute path, or URI of the run."""
    state: str = ""
    """Size and time of the last change of a file, by which a changed one is noticed."""
    first: int = 0
    stop: int = 0
    """Range of rows of a table."""
    weight: int = 1
    """Expected number of spectra."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the result: the pieces of which it has the spectra."""

    pieces: tuple[Piece, ...]
    lead: tuple[Piece, ...] = ()
    """Pieces before it, which bring the alignment to its state there."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is the same for all parts of a backfill."""

    config: Config
    folder: str
    """Output folder, absolute."""
    theory: bool = False
    columns: Columns | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each model, by name."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Provenance that every part has in its metadata."""


@dataclass(frozen=True, slots=True)
class Written:
    """A part that a worker wrote under a temporary name."""

    file: str
    """Its name in the output folder."""
    rows: int
    set_aside: Mapping[str, int]
    """Number of the rows without an estimate, by reason."""


class WorkFailed(Exception):  # noqa: N818 - named after the event
    """A part could not be done; the message says why. A later call does it again."""
