"""Tables and picture of a session's folder, made again from its documents."""

import os
from pathlib import Path

from ...adapters.files import FileSource
from ...agent.types import InputError
from ..output.folder import DOCUMENTS, PICTURE, TRUTH, Tables, lock_folder, make_folder
from ..output.kept import Alarm
from ..output.recorder import Recorder, Truth


def rebuild(folder: Path) -> Recorder:
    """Write the tables and the picture of a folder again.

    Each file takes the place of the earlier one when it is complete.

    Returns
    -------
    Recorder
        What the documents contain.

    Raises
    ------
    InputError
        The folder cannot be written, is in use or on a full disk, or its documents are not those of an agent.
    """
    FileSource(folder / DOCUMENTS)  # before the folder is made
    lock = lock_folder(folder)
    new = folder / ".rebuilt"
    try:
        make_folder(new)
        recorder = _write(folder / DOCUMENTS, new)
        drawn = recorder.drawn()
        if drawn.frames:
            from ..output.figures import draw_operando

            draw_operando(new / PICTURE, drawn, _truth(folder))
        for path in new.iterdir():
            os.replace(path, folder / path.name)
        new.rmdir()
    finally:
        lock.release()
    return recorder


def _write(documents: Path, new: Path) -> Recorder:
    """Write the tables of documents to a folder."""
    tables = Tables(new, Alarm(new))
    for _ in tables.read(documents):
        pass
    tables.close()
    if tables.lost:
        raise InputError(f"{new}: the disk is full; make space and repeat the command")
    return tables.recorder


def _truth(folder: Path) -> Truth | None:
    path = folder / TRUTH
    if not path.is_file() or not path.stat().st_size:
        return None
    truth = Truth()
    for name, doc in FileSource(path):
        truth(name, doc)
    return truth
