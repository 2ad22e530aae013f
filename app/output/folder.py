"""Output files of a session: documents, tables, summary, picture and log."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...adapters.files import FileSource
from ...agent.types import Document, InputError, get_logger
from ..journal import JOURNAL, Journal
from .csv_table import CsvTable
from .drawing import DrawingFailed, picture
from .kept import Alarm, DocumentFile, cut_torn_line, replace_file
from .known import Known
from .log_file import LogFile
from .memory import give_back_memory
from .names import DOCUMENTS, SESSION, SUMMARY
from .recorder import HISTORY_COLUMNS, NAME_COLUMNS, Recorder
from .truth import Truth

_log = get_logger()

PICTURE = "operando.png"
TRUTH = "truth.jsonl"
"""File with the true values of the embedded beamline."""
DECISIONS = "decisions.csv"
_TABLES = ("descriptors.csv", DECISIONS)
OF_DOCUMENTS = (DOCUMENTS, *_TABLES)
"""Files that are complete only if they contain all documents."""
# Without the log, which every session in the folder continues.
_OF_A_SESSION = (*OF_DOCUMENTS, TRUTH, SUMMARY, PICTURE)
_LOCK = ".lock"
_DECISION_COLUMNS = ("time", "run_uid", *NAME_COLUMNS, "id", "rule", "action", "args", "status", "status_reason")
_DECISION_COLUMNS += ("confidence", "reason", *HISTORY_COLUMNS)
_WRITE_S = 2.0
"""Interval between updates of tables and summary, s."""
_FIRST_PICTURE_S, _PICTURE_S = 10.0, 60.0
"""Time from the first frame to the first picture, and smallest time between two pictures, s."""
_PICTURE_SHARE = 0.02
"""Largest share of the time that is spent on drawing the picture."""
_NICENESS = 10
"""Niceness of drawing while frames are answered; for the last picture, which the session awaits, it is 0."""
_GIVE_BACK_S = 10.0
"""Interval at which freed memory is returned to the system, s."""
_POLL_S = 0.1
_HURRIED_S = 1.0
"""Longest wait for a picture in progress when the end is hurried, s."""
_DOCUMENTS_PER_WRITE = 1000


class Tables:
    """The tables of a folder, filled by a recorder."""

    def __init__(self, folder: Path, alarm: Alarm) -> None:
        self.recorder = Recorder(self._frame, self._decision)
        descriptors, decisions = _TABLES
        self._descriptors = CsvTable(folder / descriptors, self.recorder.columns, alarm)
        self._decisions = CsvTable(folder / decisions, lambda: _DECISION_COLUMNS, alarm)

    @property
    def lost(self) -> int:
        """Number of rows that the files lack."""
        return self._descriptors.lost + self._decisions.lost

    @property
    def not_whole(self) -> set[str]:
        """Names of the files that lack rows."""
        return {table.path.name for table in (self._descriptors, self._decisions) if table.lost}

    @property
    def dropped(self) -> int:
        """Number of rows dropped."""
        return self._descriptors.dropped + self._decisions.dropped

    def write(self) -> None:
        """Write the rows added since the last call."""
        self._descriptors.write()
        self._decisions.write()

    def read(self, documents: Path) -> Iterator[Document]:
        """Fill the tables with the documents in a file; yield these.

        Raises
        ------
        InputError
            The documents do not come from an agent.
        """
        try:
            for count, (name, doc) in enumerate(FileSource(documents)):
                self.recorder(name, doc)
                if count % _DOCUMENTS_PER_WRITE == 0:
                    self.write()
                yield name, doc
            self.recorder.report_strays(documents)
        except (LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"{documents}: found a document that no agent writes ({type(error).__name__}: {error}); "
                "name the --out of a session of run or replay"
            ) from None

    def close(self) -> None:
        """Write the remaining rows, including those of decisions without a final status."""
        for row in self.recorder.unsettled():
            self._decision(row)
        self.write()
        self._descriptors.close()
        self._decisions.close()

    def _frame(self, row: dict[str, Any]) -> None:
        self._descriptors.append(row)

    def _decision(self, row: dict[str, Any]) -> None:
        self._decisions.append(row)


class OutputFolder:
    """Output folder of one session, locked by it.

    Documents are written at once; a thread writes tables, summary and picture during the session.

    Parameters
    ----------
    folder : Path
        The folder; it is created if missing.
    identity : mapping, optional
        The ``source``, ``config`` and ``models`` of the session. With it, the folder has a journal, and a session of
        the same identity continues.
    shared : bool
        Whether other agents may take over runs.
    resume : bool
        Whether a session must exist, which then continues even with another config and other models.
    fsync : bool
        As for :class:`Journal`; each document is then also on the disk before it counts as delivered.

    Raises
    ------
    InputError
        The folder cannot be written, is in use, or contains a session that cannot continue.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, str] | None = None,
        *,
        shared: bool = False,
        resume: bool = False,
        fsync: bool = False,
    ) -> None:
        self.folder = folder
        self._lock = lock_folder(folder)
        self.journal: Journal | None = None
        try:
            found = next((name for name in (*_OF_A_SESSION, JOURNAL) if _size(folder / name)), None)
            if identity is None and found:
                raise _session_found(folder, found)
            if identity is not None:
                self.journal = _journal(folder, identity, found, resume, fsync)
            self._alarm = Alarm(folder)
            self._tables = Tables(folder, self._alarm)
            repeated = set[str]()
            self.recorded = Known(shared=shared, repeated=repeated)
            """Tells whether the recorder has a document."""
            written = Known(shared=shared, repeated=repeated)
            if self.journal is not None:
                for document in self._read_again(self.journal, repeated):
                    self.recorded.add(document)
                    written.add(document)
            self.documents = documents = DocumentFile(folder / DOCUMENTS, self._alarm, written, fsync=fsync)
            if self.journal is not None:
                self.journal.held = lambda: documents.waiting
            self._log_file = LogFile(folder, self._alarm)
        except BaseException:
            self._lock.release()
            raise
        self.recorder = self._tables.recorder
        self._summary: Callable[[], Mapping[str, Any]] = dict
        self._truth: Truth | None = None
        self._describe: Callable[[], object] = lambda: None
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._hurried: Callable[[], bool] = lambda: False
        self._cut_off: set[str] = set()
        self._journal_gone = False
        self._drawn = 0
        """Number of frames when the last picture was drawn."""
        self.dashboard = ""
        """Address of the session's dashboard, for the live view; empty if there is none."""
        self._thread = threading.Thread(target=self._work, name="output", daemon=True)

    def _read_again(self, journal: Journal, repeated: set[str]) -> Iterator[Document]:
        """Fill the tables from an earlier process's documents, and yield these; cut off an incompletely written one.

        The uids of those that the agent may send again are added to ``repeated``.
        """
        path = self.folder / DOCUMENTS
        if _size(path) and (torn := cut_torn_line(path)):
            _log.warning("incomplete document cut", file=str(path), bytes=torn)
        if not _size(path):
            if journal.delivered:
                detail = "expected those of the session that its journal continues"
                raise InputError(f"{path}: found no documents, {detail}; bring it back, or name another --out")
            return
        undelivered, count = set[str](), 0
        for _, name, doc in journal.undelivered():
            undelivered |= {*doc["uid"]} if name == "event_page" else {doc["uid"]}
        for name, doc in self._tables.read(path):
            count += 1
            if doc["uid"] in undelivered:
                repeated.add(doc["uid"])
            yield name, doc
        if count > journal.published:
            self._tables.close()  # complete as they were
            detail = "after a full disk, a power failure or the loss of journal.sqlite-wal; name another --out"
            raise InputError(f"{path}: found documents that the journal beside it lacks, {detail}")

    @property
    def lost(self) -> dict[str, int]:
        """Number of documents, table rows and journal records that the files lack."""
        journal = self.journal.lost if self.journal is not None else 0
        return {"documents": self.documents.lost, "rows": self._tables.lost, "records of the journal": journal}

    @property
    def refused(self) -> dict[str, int]:
        """Number of documents and rows that were dropped or, while the disk takes nothing, that wait."""
        if self._alarm.broken:
            return self.lost
        return {"documents": self.documents.dropped, "rows": self._tables.dropped}

    @property
    def not_whole(self) -> list[str]:
        """Names of the incomplete files, after :meth:`finish`."""
        names = self._alarm.broken | self._tables.not_whole | self._cut_off
        if self.documents.lost or self.documents.cut:
            names.add(DOCUMENTS)
        if self._drawn < self.recorder.frames:
            names.add(PICTURE)
        return sorted(names)

    def cut_off(self, *names: str) -> None:
        """Record files whose writers were ended before these were complete."""
        self._cut_off.update(names)

    def keep_earlier(self, config_sha256: str) -> None:
        """Keep the record of an earlier process if the session continues with another config.

        Parameters
        ----------
        config_sha256 : str
            Hash of the present config.
        """
        path = self.folder / SESSION
        try:
            before = str(json.loads(path.read_text(encoding="utf-8"))["config_sha256"]) if path.is_file() else ""
            if before not in ("", config_sha256):
                os.replace(path, path.with_name(f"session-{before[:12]}.json"))
        except OSError as error:
            self._alarm.failed(SESSION, error)
        except (ValueError, LookupError, TypeError):
            _log.warning("session not kept", file=str(path), detail="found a file that no session wrote")

    def start(
        self,
        summary: Callable[[], Mapping[str, Any]],
        truth: Truth | None,
        describe: Callable[[], object] = lambda: None,
    ) -> None:
        """Begin to write.

        Parameters
        ----------
        summary : callable
            Returns the contents of summary.json; called from a thread.
        truth : Truth or None
            True values, for the picture.
        describe : callable
            Writes session.json; called again if somebody has removed the file.
        """
        self._summary, self._truth, self._describe = summary, truth, describe
        describe()
        self._thread.start()

    def finish(self, hurried: Callable[[], bool] = lambda: False) -> None:
        """Write all remaining data and release the folder.

        Parameters
        ----------
        hurried : callable
            Returns whether to keep the picture as it was last drawn.
        """
        self._hurried = hurried
        self._ended.set()
        while self._thread.is_alive() and not hurried():
            self._thread.join(_POLL_S)
        if self._thread.is_alive():
            self._thread.join(_HURRIED_S)
        with self._writing:
            self.documents.close()
            self._tables.close()
        if not hurried():
            self._describe_again()
            self._write_summary()  # before the picture, which takes seconds; the dashboard shows it meanwhile
            self._draw(niceness=0)
        self._write_summary()  # last of all, since it counts what was not written
        self._log_file.close()
        self._lock.release()

    def release(self) -> None:
        """Unlock the folder before a session has begun."""
        self.documents.close()
        self._log_file.close()
        if self.journal is not None:
            self.journal.close()
        self._lock.release()

    def _work(self) -> None:
        picture_due, given_back = float("inf"), time.monotonic()
        while not self._ended.wait(_WRITE_S):
            with self._writing:
                if self._ended.is_set():
                    return
                self.documents.flush()
                self._tables.write()
            self._check_journal()
            self._log_file.restore()
            self._log_file.retry()
            self._describe_again()
            self._write_summary()
            frames, now = self.recorder.frames, time.monotonic()
            if frames and picture_due == float("inf"):
                picture_due = now + _FIRST_PICTURE_S
            if frames > self._drawn and now > picture_due:
                self._draw()
                taken = time.monotonic() - now
                picture_due = now + max(_PICTURE_S, taken / _PICTURE_SHARE)
            if now - given_back > _GIVE_BACK_S:
                give_back_memory()
                given_back = now

    def _describe_again(self) -> None:
        if not (self.folder / SESSION).exists():
            self._describe()

    def _check_journal(self) -> None:
        """Report once if somebody has removed the journal, which SQLite does not notice."""
        journal = self.journal
        if journal is None or self._journal_gone or journal.path.exists():
            return
        self._journal_gone = True
        journal.unkept += 1  # nothing is acknowledged to a broker from now on
        detail = "the session goes on, but not after a kill: end it, and begin another one with a new --out"
        _log.error("journal was removed", file=str(journal.path), detail=detail)

    def _write_summary(self) -> None:
        text = json.dumps(self._summary(), indent=2) + "\n"
        self._guarded(SUMMARY, lambda new: _write_text(new, text))

    def _draw(self, niceness: int = _NICENESS) -> None:
        drawn = self.recorder.drawn()
        if not drawn.frames and not drawn.notes:
            return
        if not niceness:
            _log.info("drawing the last picture", file=str(self.folder / PICTURE))  # this takes seconds

        def write(new: Path) -> None:
            new.write_bytes(picture(drawn, self._truth, lambda: self._hurried(), niceness=niceness))

        if self._guarded(PICTURE, write):
            self._drawn = drawn.count

    def _guarded(self, name: str, write: Callable[[Path], None]) -> bool:
        """Replace a file; return whether this succeeded, and log the error if not."""
        try:
            replace_file(self.folder / name, write)
        except OSError as error:
            self._alarm.failed(name, error)
        except DrawingFailed as error:
            _log.warning("picture not drawn", file=name, error=str(error))
        except Exception:
            _log.exception("output not written", file=name)
        else:
            self._alarm.written(name)
            return True
        return False


def _journal(folder: Path, identity: Mapping[str, str], found: str | None, resume: bool, fsync: bool) -> Journal:
    """Open the journal of a folder; ``found`` is the sign of an earlier session in it, if any.

    Raises
    ------
    InputError
        The folder has a session without a journal or with another identity, or none to ``resume``.
    """
    exists = _size(folder / JOURNAL) > 0
    if found and not exists:
        raise _session_found(folder, found)
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


def _session_found(folder: Path, found: str) -> InputError:
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


def _size(path: Path) -> int:
    """Return the size of a file, bytes; 0 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
