"""Runs a backfill from its sources to its folder."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from ....adapters.formats import Columns
from ....models.card import read_card
from ....models.progress import Progress
from ....wording import counted
from ...config import Config
from ...wiring import model_folders
from .engines import Engine
from .folder import ArchiveFolder
from .plan import Plan, parts_of, plan
from .sources import Sources
from .work import PART_ROWS, Part, Work, Written


@dataclass(frozen=True, slots=True)
class Backfill:
    """The sources and settings of a backfill."""

    given: Sequence[str]
    """Files, folders, shell patterns and catalogues."""
    config: Config
    part_rows: int = PART_ROWS
    """Largest expected number of spectra in a part."""
    columns: Columns | None = None
    """As for :func:`read_spectra`."""
    theory: bool = False
    """Whether the spectra are computed, on FEFF's energies and normalisation."""

    @property
    def sources(self) -> Sources:
        """The pieces of the given sources."""
        return Sources(self.given, self.part_rows, self.config.tiled, self.columns)

    def identity(self) -> dict[str, Any]:
        """Return the settings that must be equal for a backfill to continue in its folder, as JSON values."""
        cards = [read_card(folder) for folder in model_folders(self.config)]
        columns = {role: [c] if isinstance(c, str | int) else [*c] for role, c in (self.columns or {}).items()}
        return {
            "config": self.config.sha256,
            "models": {card.name: card.sha256 for card in cards},
            "part rows": self.part_rows,
            "columns": columns,
            "theory": self.theory,
        }

    def plan(self, folder: ArchiveFolder) -> Plan:
        """Count the spectra of the sources, and those that the folder lacks.

        Raises
        ------
        InputError
            A source is missing or holds no file.
        EndpointUnreachable
            A catalogue does not answer.
        """
        return plan(self.sources, folder.state_of, self.part_rows)

    def fill(self, folder: ArchiveFolder, engine: Engine, parts: int, progress: Progress) -> bool:
        """Compute the parts that a folder lacks; return whether Ctrl-C ended the work early.

        Parts completed before an interruption or an error are kept.

        Parameters
        ----------
        folder : ArchiveFolder
            Locked folder with this identity.
        engine : Engine
        parts : int
            Number of parts to compute, for the progress display.
        progress : Progress

        Raises
        ------
        WorkFailed
            A part could not be computed.
        OSError
            The disk cannot store the manifest.
        """
        about = {"config_sha256": self.config.sha256, "theory": self.theory}
        models = self.identity()["models"]
        work = Work(self.config, str(folder.folder), self.theory, self.columns, models, about)
        missing = parts_of(self.sources, lambda piece: folder.state_of(piece) is not None, self.part_rows)
        progress("backfill", 0, parts)
        try:
            with closing(engine(partial(_write_part, work), missing)) as results:
                for done, (part, written) in enumerate(results, 1):
                    folder.keep(part, written)
                    progress("backfill", done, parts, counted(folder.rows, "spectrum", "spectra"))
        except KeyboardInterrupt:
            return True
        return False


def _write_part(work: Work, part: Part) -> Written:
    """Write a part in a worker."""
    from .serve import write_part  # imports torch, which only workers need

    return write_part(work, part)
