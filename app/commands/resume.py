"""Options and output folder of a session of ``xas-agent run`` that can go on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .shared import USAGE, fail

if TYPE_CHECKING:
    from ..config import Config
    from ..journal import Journal
    from ..output.folder import OutputFolder

_PATHS = ("folder", "curve_key", "curve_server_key", "curve_clients", "control_secret")
"""Options that are paths."""


def earlier_options(out: Path) -> dict[str, Any]:
    """Return the options of the session in a folder."""
    from ..journal import JOURNAL, Journal
    from ..output.opening import lock_folder

    if not (out / JOURNAL).is_file():
        fail(f"{out}: found no {JOURNAL}, expected the --out of an earlier session of run", USAGE)
    lock = lock_folder(out)
    try:
        journal = Journal(out / JOURNAL)
        options = json.loads(journal.meta.get("options", "{}"))
        journal.close()
    finally:
        lock.release()
    if not options:
        fail(f"{out}: found a journal without a session, which did not begin; repeat its command with --out", USAGE)
    paths = {name: Path(options[name]) for name in _PATHS if options.get(name)}
    return {name: value for name, value in (options | paths).items() if name not in ("out", "resume")}


def keep_options(journal: "Journal", options: Mapping[str, Any], recording: Path | None, config: str | None) -> None:
    """Keep the options of a session in its journal, with the files that they name as absolute paths."""
    files = {"source": recording} if recording else {}
    files |= {"config": Path(config)} if config and Path(config).is_file() else {}
    journal.name({"options": json.dumps({**options, **files}, default=lambda path: str(path.resolve()))})


def output_of(out: Path | None, settings: "Config", files: Path | None, resume: bool) -> "OutputFolder | None":
    """Return the output folder, with a journal if the source can go on in it."""
    from ..output.folder import OutputFolder
    from ..wiring import identity_of

    if out is None:
        return None
    durability = settings.journal.durability
    endpoint = settings.source or settings.shared
    source = files.resolve() if files else endpoint.address if endpoint else None
    source = source or (settings.tiled.uri if settings.tiled else None)
    if source is None or durability == "off":
        if resume:
            fail("--resume: found no journal, because journal.durability is off", USAGE)
        return OutputFolder(out)
    identity, shared = identity_of(settings, str(source)), settings.shared is not None
    return OutputFolder(out, identity, shared=shared, resume=resume, fsync=durability == "fsync")
