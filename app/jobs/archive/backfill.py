"""A backfill from its sources to its folder."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ....adapters.formats import Columns
from ....models.card import read_card
from ....models.progress import Progress
from ...config import Config
from ...wiring import model_folders
from .engines import Engine
from .folder import ArchiveFolder
from .plan import Plan, parts_of
from .sources import Sources
from .work import Work


@dataclass(slots=True)
class Summary:
    """What a backfill has in its folder."""

    rows: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)
    """Number of rows without an estimate, by reason."""
    interrupted: bool = False


def identity_of(config: Config, part_rows: int, columns: Columns | None, *, theory: bool) -> dict[str, Any]:
    """Return what must be the same for a backfill to go on, as JSON values."""
    cards = [read_card(folder) for folder in model_folders(config)]
    return {
        "config": config.sha256,
        "models": {card.name: card.sha256 for card in cards},
        "part rows": part_rows,
        "columns": {role: [names] if isinstance(names, str | int) else [*names] for role, names in columns.items()}
        if columns
        else {},
        "theory": theory,
    }


def backfill(
    sources: Sources,
    folder: ArchiveFolder,
    planned: Plan,
    config: Config,
    engine: Engine,
    identity: Mapping[str, Any],
    part_rows: int,
    *,
    columns: Columns | None,
    theory: bool,
    progress: Progress,
) -> Summary:
    """Do the parts that the folder lacks. Ctrl-C ends the work; the parts done until then are kept.

    Parameters
    ----------
    sources : Sources
    folder : ArchiveFolder
        Locked, of the same identity.
    planned : Plan
        How much there is to do.
    config : Config
    engine : Engine
    identity : mapping
        As :func:`identity_of` gives it.
    part_rows : int
        Largest expected number of spectra of a part.
    columns : mapping or None
        As for :func:`read_spectra`.
    theory : bool
        Whether the spectra are computed.
    progress : Progress

    Returns
    -------
    Summary
        Of all parts of the folder, also of earlier calls.

    Raises
    ------
    WorkFailed
        A part could not be done; the parts done until then are kept.
    OSError
        The disk does not take the manifest.
    """
    from .serve import write_part  # which imports torch; --dry-run does not need it

    about = {"config_sha256": config.sha256, "theory": theory}
    work = Work(config, str(folder.folder), theory, columns, identity["models"], about)
    parts = parts_of(sources, lambda piece: folder.state_of(piece) is not None, part_rows)
    summary, done = Summary(), 0
    progress("backfill", done, planned.parts)
    try:
        for part, written in engine(partial(write_part, work), parts):
            folder.keep(part, written)
            done += 1
            progress("backfill", done, planned.parts, f"{folder.rows} spectra")
    except KeyboardInterrupt:
        summary.interrupted = True
    summary.rows, summary.set_aside = folder.rows, folder.set_aside
    return summary
