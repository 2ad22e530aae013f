"""Writes the tables and the picture of a session's folder again from its documents."""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import TypeAdapter

from ...adapters.files import FileSource
from ...agent.decide import Rule
from ...agent.types import InputError, get_logger
from ..output.folder import PICTURE, TRUTH, Tables
from ..output.kept import Alarm
from ..output.names import DOCUMENTS, SESSION
from ..output.opening import lock_folder
from ..output.recorder import Recorder
from ..output.truth import Truth

_log = get_logger()


def rebuild(folder: Path) -> Recorder:
    """Write the tables and the picture of a folder again.

    Each file replaces the earlier one once it is complete.

    Returns
    -------
    Recorder
        The contents of the documents.

    Raises
    ------
    InputError
        The folder has no documents of an agent, cannot be written, is in use, or is on a full disk.
    """
    if not (folder / DOCUMENTS).is_file():
        raise InputError(f"{folder}: found no {DOCUMENTS}; name the --out of a session of run or replay")
    lock = lock_folder(folder)
    try:
        return _replace_files(folder)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; mend this, and repeat the command") from None
    finally:
        lock.release()


def _replace_files(folder: Path) -> Recorder:
    """Write tables and picture beside those of a folder, then replace the old ones."""
    with TemporaryDirectory(prefix=".rebuilt-", dir=folder) as name:
        new = Path(name)
        recorder = _write(folder / DOCUMENTS, new)
        if recorder.strays and not recorder.frames:
            detail = "found no frame that can be read; the tables are left as they are"
            raise InputError(f"{folder / DOCUMENTS}: {detail}")
        recorder.rules = rules_of(folder)
        drawn = recorder.drawn()
        if drawn.frames or drawn.notes:
            from ..output.figures import draw_operando

            draw_operando(new / PICTURE, drawn, truth_of(folder))
        for path in new.iterdir():
            os.replace(path, folder / path.name)
    return recorder


def _write(documents: Path, new: Path) -> Recorder:
    """Write the tables of documents to a folder."""
    tables = Tables(new, Alarm(new))
    for _ in tables.read(documents):
        pass
    tables.close()
    if tables.lost:
        raise InputError(f"{new.parent}: the disk did not take the tables; make space, and repeat the command")
    return tables.recorder


def rules_of(folder: Path) -> tuple[Rule, ...]:
    """Return the rules that a session recorded; none if the record cannot be read."""
    try:
        config = json.loads((folder / SESSION).read_text(encoding="utf-8"))["config"]
        return TypeAdapter(tuple[Rule, ...]).validate_python(config.get("rules", ()))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        _log.warning("the picture has no rules", file=str(folder / SESSION), error=str(error).partition("\n")[0])
        return ()


def truth_of(folder: Path) -> Truth | None:
    """Return the true values in a folder; None if it has no complete document of them."""
    truth = Truth()
    try:
        for name, doc in FileSource(folder / TRUTH):
            truth(name, doc)
    except InputError:
        return None
    return truth
