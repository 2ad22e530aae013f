"""Opens the folder of a session: makes, locks and names it, and finds what an earlier session left in it."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ...agent.types import InputError, get_logger
from ..journal import JOURNAL, Journal

_log = get_logger()

_LOCK = ".lock"


def open_journal(folder: Path, identity: Mapping[str, str], found: str | None, resume: bool, fsync: bool) -> Journal:
    """Open the journal of a folder; ``found`` is the sign of an earlier session in it, if any.

    Raises
    ------
    InputError
        The folder has a session without a journal or with another identity, or none to ``resume``.
    """
    exists = size_of(folder / JOURNAL) > 0
    if found and not exists:
        raise session_found(folder, found)
    if resume and not exists:
        raise InputError(f"{folder}: found no {JOURNAL}, expected the --out of an earlier session of run")
    journal = Journal(folder / JOURNAL, fsync=fsync)
    other = [name for name, value in identity.items() if journal.meta.get(name, value) != value]
    if other and not journal.unused and not (resume and "source" not in other):
        journal.close()
        hint = "" if "source" in other else ", or go on with --resume in a new run of the agent"
        raise InputError(
            f"{folder}: found a session with another {' and '.join(other)}, expected the same command; "
            f"name another --out{hint}"
        )
    if other:
        journal.forget_memory()
    if not journal.unused:
        _log.info("going on", folder=str(folder), **{f"other_{name}": True for name in other})
    journal.name(identity)
    return journal


def session_found(folder: Path, found: str) -> InputError:
    """Return the error for a folder with a file ``found`` of a session that cannot go on."""
    return InputError(
        f"{folder}: found {found} of an earlier session, which is never overwritten; "
        "expected a new or empty folder: name another --out, or move this one away"
    )


def fresh_folder(parent: Path) -> Path:
    """Create a new folder in ``parent``, named by the time: 2026-11-27T101500."""
    name = datetime.now().strftime("%Y-%m-%dT%H%M%S")
    make_folder(parent)
    for number in range(1, 1000):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise _unusable(folder, error) from None
        return folder
    raise InputError(f"{parent}: found no free name for a new folder; move some of the earlier ones away")


def make_folder(folder: Path) -> None:
    """Create a folder if it is missing; raise InputError if this fails or if the path is a file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None


def _unusable(folder: Path, error: OSError) -> InputError:
    return InputError(f"{folder}: cannot be used as the output folder: {error.strerror}; name another one")


def lock_folder(folder: Path) -> FileLock:
    """Create a folder if it is missing, and lock it; the lock ends with the process."""
    make_folder(folder)
    lock = FileLock(folder / _LOCK, timeout=0, thread_local=False)
    try:
        (folder / _LOCK).open("ab").close()  # without write permission, the lock would report the folder as in use
        lock.acquire()
    except Timeout:
        raise InputError(f"{folder}: in use by another agent; end that agent first, or name another folder") from None
    except OSError as error:
        raise _unusable(folder, error) from None
    return lock


def size_of(path: Path) -> int:
    """Return the size of a file, bytes; 0 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
