"""Output files of a session: documents, tables, summary, picture and log."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

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
from .opening import lock_folder, open_journal, session_found, size_of
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
            found = next((name for name in (*_OF_A_SESSION, JOURNAL) if size_of(folder / name)), None)
            if identity is None and found:
                raise session_found(folder, found)
            if identity is not None:
                self.journal = open_journal(folder, identity, found, resume, fsync)
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
        if size_of(path) and (torn := cut_torn_line(path)):
            _log.warning("incomplete document cut", file=str(path), bytes=torn)
        if not size_of(path):
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


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
