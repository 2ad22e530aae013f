"""The SQLite file of the journal."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

from cachetools import FIFOCache

from ...adapters.codecs import to_json
from ...agent.progress import Past, Progress
from ...agent.types import Document, InputError, Received, get_logger
from .owners import Owners
from .past import read_past
from .records import as_text, key_as_text, last_seq_num, packed, unpacked
from .waiting import Waiting

_log = get_logger()

JOURNAL = "journal.sqlite"
_FORMAT = "1"
_RETRY_S = 1.0
"""Interval between attempts to write, s."""
_MAX_ENDED = 1000
"""Number of ended runs to remember, as in the book; their later documents are not stored."""
_CHUNK = 200
"""Number of documents that are read back at once."""
_MAX_UNKNOWN = 20_000
"""Number of latest documents among which those without a known run are kept."""
_COMPACT_S = 1.0
"""Interval at which inputs that are no longer needed are deleted, s."""
_CHECKPOINT_PAGES = 4000
"""Number of pages in the write-ahead log, 16 MB, at which SQLite copies them to the file. Most pages are overwritten
before, so that a longer log means less writing."""
_MAX_STATES = 5000
"""Largest number of stored states; those unchanged for longest are deleted first."""
_OF_ANY_CONFIG = ("decisions", "notes", "position", "run", "sample")
"""Owners of states that hold under any config."""
_DELIVERED_ONCE = "once"
"""Stands for the stream of an Event that is no longer needed once it is delivered."""
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS position (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ended (id INTEGER PRIMARY KEY, run TEXT UNIQUE);
CREATE TABLE IF NOT EXISTS inputs
    (id INTEGER PRIMARY KEY, run TEXT, stream TEXT, seq INTEGER, name TEXT, at REAL, crc32 INTEGER, doc BLOB);
CREATE INDEX IF NOT EXISTS inputs_by_run ON inputs (run, stream, seq);
CREATE TABLE IF NOT EXISTS outcomes (run TEXT, frame TEXT, input INTEGER, PRIMARY KEY (run, frame)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS published
    (id INTEGER PRIMARY KEY, run TEXT, stream TEXT, name TEXT, at REAL, crc32 INTEGER, doc BLOB);
CREATE INDEX IF NOT EXISTS published_by_run ON published (run);
CREATE TABLE IF NOT EXISTS memory (key TEXT PRIMARY KEY, input INTEGER, crc32 INTEGER, doc BLOB);
"""


# An update in place changes few pages; this is a large part of the time for a frame.
_SET_STATE = """
INSERT INTO memory VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET input = excluded.input, crc32 = excluded.crc32, doc = excluded.doc
"""


class Journal:
    """Stores what a session needs to continue: accepted and published documents, states of rules and alignment.

    Records are checksummed and written in transactions. Records that cannot be written, as on a full disk, wait in
    memory up to a limit; beyond it the oldest Events are dropped and counted. Data no longer needed are deleted, so
    that the file does not grow with the number of runs. Only one thread at a time may use it.

    Parameters
    ----------
    path : Path
        The file; it is created if missing.
    fsync : bool
        Whether each transaction is on the disk when it returns.

    Raises
    ------
    InputError
        The file cannot be used.
    """

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        self.path = path
        self._waiting = Waiting()
        self._owners, self._own = Owners(), Owners()
        self._ended: FIFOCache[str, None] = FIFOCache(_MAX_ENDED)
        self._unwatched: FIFOCache[str, None] = FIFOCache(_MAX_ENDED)
        self.lost = 0
        """Number of records that could not be stored."""
        self.unkept = 0
        """Number of accepted documents that could not be stored."""
        self.held: Callable[[], bool] = lambda: False
        """Returns whether documents that a subscriber has taken may still be lost."""
        self._broken = False
        self._tried_at = 0.0
        try:
            self._file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._file.execute("PRAGMA locking_mode=EXCLUSIVE")  # no shared memory, which network disks lack
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute(f"PRAGMA synchronous={'FULL' if fsync else 'NORMAL'}")
            self._file.execute("PRAGMA secure_delete=OFF")  # Debian's default overwrites all deleted data with zeros
            self._file.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
            self._file.executescript(_TABLES)
            (sound,) = self._file.execute("PRAGMA quick_check(1)").fetchone()
            if sound != "ok":
                raise sqlite3.DatabaseError(sound.splitlines()[-1])
            self.resumed = bool(self._file.execute("SELECT 1 FROM position UNION SELECT 1 FROM inputs").fetchone())
            """Whether an earlier process accepted documents."""
            self.meta: dict[str, str] = dict(self._file.execute("SELECT key, value FROM meta"))
            if self.meta.setdefault("format", _FORMAT) != _FORMAT:
                raise InputError(f"{path}: found a journal of format {self.meta['format']}, expected {_FORMAT}")
            self._delivered = self._pruned = int(self.meta.get("delivered", 0))
            self.position = {key: json.loads(value) for key, value in self._file.execute("SELECT * FROM position")}
            """Position of the source after the last document that an earlier process accepted."""
            self._over = frozenset(run for (run,) in self._file.execute("SELECT run FROM ended"))
            """Runs that ended in an earlier process."""
            (newest,) = self._file.execute("SELECT max(id) FROM published").fetchone()
            latest_of = "SELECT max(id) AS n FROM inputs UNION SELECT max(input) FROM memory"
            (latest,) = self._file.execute(f"SELECT max(n) FROM ({latest_of})").fetchone()
            self._input: int = latest or 0
            """Number of the latest input."""
            self._closed: dict[str, int] = {}
            """Number of the RunStop of each closed agent run that still has records."""
            structure = "SELECT id, name, crc32, doc FROM published WHERE name NOT IN ('event', 'event_page')"
            for number, name, doc in self._documents(structure):
                run, _ = self._own(name, doc)
                if name == "stop":
                    self._closed[run] = number
        except sqlite3.OperationalError as error:  # in use, read-only, or a full disk
            raise InputError(f"{path}: cannot be used as the journal: {error}") from None
        except (sqlite3.Error, ValueError) as error:
            detail = "name another --out; the documents beside it remain"
            raise InputError(f"{path}: found a file that is no journal or is damaged ({error}); {detail}") from None
        self._next = max(newest or 0, self._delivered) + 1
        self._read_up_to: dict[tuple[str, str], int] = {}
        """Number, by run and stream, up to which Events can be deleted."""
        self._compacted_at = time.monotonic()

    def name(self, identity: Mapping[str, str]) -> None:
        """Record the identity of the session."""
        self.meta |= identity
        rows = list(self.meta.items())
        try:
            self._file.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise InputError(f"{self.path}: cannot be written ({error})") from None

    def accept(self, batch: Sequence[Received]) -> list[Received]:
        """Store documents before they are processed.

        Several documents are written at once. A single one is processed within milliseconds and written together with
        its results, by :meth:`publish` or :meth:`commit`: a transaction is the slowest step of a frame.

        Returns
        -------
        list of Received
            The documents without those of runs that ended in an earlier process, which a source may send again.
        """
        new: list[Received] = []
        for received in batch:
            self._waiting.position |= received.position or {}
            try:
                is_over = self._keep(received)
            except Exception as error:  # the document is processed in any case
                is_over = False
                self._lose(received.name, error)
                self.unkept += 1
            if not is_over:
                new.append(received)
        if len(batch) > 1:
            self.commit()
        return new

    def _keep(self, received: Received) -> bool:
        """Store a document; return whether it belongs to a run that ended in an earlier process."""
        name, doc = received.name, received.doc
        run, stream = map(as_text, self._owners(name, doc))
        if run in self._over:
            return True
        if run in self._ended or (run in self._unwatched and name not in ("start", "descriptor", "stop")):
            return False
        record = packed(doc)
        at = time.time() - (time.monotonic() - received.at)
        row = self._input + 1, run, stream, last_seq_num(name, doc), as_text(str(name)), at, crc32(record), record
        self._input += 1
        self._waiting.inputs.append(row)
        self._waiting.size += len(record)
        return False

    def _lose(self, name: str, error: Exception) -> None:
        """Count a record that was not stored; log the first one as an error."""
        write = _log.debug if self.lost else _log.error
        self.lost += 1
        write("record not kept in the journal", name=str(name), error=f"{type(error).__name__}: {error}")

    def publish(self, documents: Sequence[Document], progress: Progress, delivered: int) -> list[int]:
        """Store the results of the accepted documents.

        Parameters
        ----------
        documents : sequence of (str, dict)
            The agent's own documents, before they are sent.
        progress : Progress
        delivered : int
            Number of the last document that all subscribers have received.

        Returns
        -------
        list of int
            Rising numbers of the documents; the number of a page is that of its last Event.
        """
        numbers = [self._number(name, doc) for name, doc in documents]
        try:
            self._keep_published(documents, numbers)
            self._keep_progress(progress)
        except Exception as error:  # published documents are sent in any case
            self._lose("documents of the agent, or what they answer", error)
        self._deliver(delivered)
        self.commit()
        return numbers

    def _number(self, name: str, doc: Mapping[str, Any]) -> int:
        number = self._next + (len(doc["seq_num"]) if name == "event_page" else 1) - 1
        self._next = number + 1
        return number

    def _keep_published(self, documents: Sequence[Document], numbers: Sequence[int]) -> None:
        now = time.time()
        for number, (name, doc) in zip(numbers, documents, strict=True):
            run, stream = self._own(name, doc)
            if name in ("event", "event_page") and stream != "decisions":
                stream = _DELIVERED_ONCE
            record = self._packed(name, doc)
            if record is not None:
                self._waiting.published.append((number, run, stream, name, now, crc32(record), record))
                self._waiting.size += len(record)
            if name == "stop":
                self._closed[run] = number

    def _keep_progress(self, progress: Progress) -> None:
        waiting = self._waiting
        waiting.outcomes += [(as_text(run), to_json(frame), self._input) for run, frame in progress.outcomes]
        for (run, owner, *_), state in progress.memory.items():
            if owner == "position":
                self._read_up_to |= {
                    (as_text(run or ""), as_text(s)): numbers[0] for s, numbers in state.items() if s
                }
        packed_states = {key_as_text(key): self._packed("state", state) for key, state in progress.memory.items()}
        waiting.memory |= {key: state for key, state in packed_states.items() if state is not None}
        ended, unwatched = list(map(as_text, progress.ended)), list(map(as_text, progress.unwatched))
        waiting.ended += ended
        waiting.unwatched += unwatched
        self._forget(progress.given_up)
        self._ended.update(dict.fromkeys(ended))
        self._unwatched.update(dict.fromkeys(unwatched))

    @property
    def safe(self) -> bool:
        """Whether all accepted documents are in the file, and no delivered one may still be lost."""
        return not self._waiting.inputs and not self.held()

    @property
    def delivered(self) -> int:
        """Number of the newest document that all subscribers have received; 0 before the first."""
        return self._delivered

    @property
    def published(self) -> int:
        """Number of the agent's documents from all processes; a page counts as its Events."""
        return self._next - 1

    @property
    def unused(self) -> bool:
        """Whether it holds no accepted or published document, because the session ended before it began."""
        return not (self.resumed or self._over or self.published)

    def past(self) -> Past:
        """Return the results for the runs that are not over."""
        return read_past(self._documents, self._file)

    def structure(self) -> Iterator[Document]:
        """Return the RunStarts and Descriptors of the agent's runs that are open or that a subscriber may lack."""
        sql = "SELECT name, crc32, doc FROM published WHERE name IN ('start', 'descriptor') ORDER BY id"
        return ((name, doc) for name, doc in self._documents(sql))

    def undelivered(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Return the documents, with their numbers, that a subscriber may lack."""
        return self._documents("SELECT id, name, crc32, doc FROM published WHERE id > ? ORDER BY id", self._delivered)

    def inputs(self) -> Iterator[list[Received]]:
        """Return the documents of runs that are not over, in batches."""
        last, now, monotonic = 0, time.time(), time.monotonic()
        while True:
            sql = "SELECT id, at, name, crc32, doc FROM inputs WHERE id > ? ORDER BY id LIMIT ?"
            rows = list(self._documents(sql, last, _CHUNK))
            if not rows:
                return
            last = rows[-1][0]
            for _, _, name, doc in rows:
                self._owners(name, doc)
            yield [Received(name, doc, monotonic - max(0.0, now - at)) for _, at, name, doc in rows]

    def forget_memory(self) -> None:
        """Forget the states of rules, alignment and models, which belong to another config or model."""
        keys = [key for (key,) in self._file.execute("SELECT key FROM memory")]
        stale = [(key,) for key in keys if json.loads(key)[1] not in _OF_ANY_CONFIG]
        self._file.executemany("DELETE FROM memory WHERE key = ?", stale)

    def forget_events(self) -> None:
        """Forget all documents of runs that are not over, except starts; a broker sends them to the run's owner."""
        self._file.execute("DELETE FROM inputs WHERE name != 'start'")

    def give_up_undelivered(self) -> None:
        """Treat runs with documents that a subscriber lacks as never read; a broker sends them again."""
        sql = "SELECT run, crc32, doc FROM published WHERE name = 'start'"
        watched = {run: doc.get("parent_uid") for run, doc in self._documents(sql)}
        lacking = self._file.execute("SELECT DISTINCT run FROM published WHERE id > ?", (self._delivered,))
        # What belongs to no run has no start from which it could be read again.
        self._forget([str(watched[run]) for (run,) in lacking if watched.get(run)])
        self.commit(now=True)

    def _forget(self, runs: Sequence[str]) -> None:
        """Delete all records of runs, which may be read again from their starts."""
        given_up = [*map(as_text, runs)]
        self._waiting.given_up += given_up
        self._over = self._over.difference(given_up)
        for run in given_up:
            self._ended.pop(run, None)
            self._unwatched.pop(run, None)
        self._read_up_to = {key: number for key, number in self._read_up_to.items() if key[0] not in given_up}

    def close(self, delivered: int = 0) -> None:
        """Write waiting records and close the file; documents up to number ``delivered`` will not be sent again."""
        self._deliver(delivered)
        self.commit(now=True)
        if self._waiting.inputs or self._waiting.published:
            self.lost += len(self._waiting.inputs) + len(self._waiting.published)
        self._file.close()

    def _deliver(self, number: int) -> None:
        if not self.held():
            self._delivered = max(self._delivered, number)

    def _documents(self, sql: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Return the rows of a query whose last columns are checksum and document; skip damaged rows."""
        damaged = 0
        for *columns, checksum, record in self._file.execute(sql, values):
            try:
                doc = unpacked(record) if crc32(record) == checksum else None
            except Exception:  # msgpack and numpy raise many types of exception
                doc = None
            if doc is None:
                damaged += 1
            else:
                yield *columns, doc
        if damaged:
            _log.warning("records of the journal are damaged and left out", file=str(self.path), records=damaged)

    def _packed(self, name: str, value: Any) -> bytes | None:
        """Return a document or state as bytes; None, counted as lost, if it cannot be converted."""
        try:
            return packed(value)
        except Exception as error:
            self._lose(name, error)
            return None

    def commit(self, *, now: bool = False) -> None:
        """Write waiting records in one transaction; after a failure, try again each second, or ``now``."""
        if self._waiting == Waiting() and self._delivered == self._pruned:
            return
        if self._broken and not now and time.monotonic() - self._tried_at < _RETRY_S:
            self.lost += self._waiting.drop()
            return
        try:
            self._file.execute("BEGIN IMMEDIATE")
            self._write_waiting()
            self._file.execute("COMMIT")
        except Exception as error:  # from SQLite, or because of a value that it cannot store
            with suppress(sqlite3.Error):
                self._file.execute("ROLLBACK")
            self._tried_at = time.monotonic()
            if not self._broken:
                self._broken = True
                detail = "documents are published on; make space, and the journal goes on"
                _log.error("journal not written", file=str(self.path), error=str(error), detail=detail)
            self.lost += self._waiting.drop()
            return
        self._waiting = Waiting()
        self._pruned = self._delivered
        if self._broken:
            self._broken = False
            _log.info("journal written again", file=str(self.path), records_lost=self.lost)

    def _write_waiting(self) -> None:
        waiting, file = self._waiting, self._file
        states = [(key, self._input, crc32(state), state) for key, state in waiting.memory.items()]
        position = [(key, to_json(value)) for key, value in waiting.position.items() if value is not None]
        forgotten = [(key,) for key, value in waiting.position.items() if value is None]
        for sql, rows in (
            ("INSERT INTO inputs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", waiting.inputs),
            ("INSERT INTO published VALUES (?, ?, ?, ?, ?, ?, ?)", waiting.published),
            ("INSERT OR REPLACE INTO outcomes (run, frame, input) VALUES (?, ?, ?)", waiting.outcomes),
            (_SET_STATE, states),
            ("INSERT OR REPLACE INTO position VALUES (?, ?)", position),
            ("DELETE FROM position WHERE key = ?", forgotten),
        ):
            if rows:  # each call lets other threads run
                file.executemany(sql, rows)
        for run in waiting.unwatched:
            file.execute("DELETE FROM inputs WHERE run = ? AND name NOT IN ('start', 'descriptor', 'stop')", (run,))
        for run in [*waiting.ended, *waiting.given_up]:
            for table in ("inputs", "outcomes"):
                file.execute(f"DELETE FROM {table} WHERE run = ?", (run,))
            begin = to_json([run])[:-1] + ","
            file.execute("DELETE FROM memory WHERE key > ? AND key < ?", (begin, begin + "\U0010ffff"))
        file.executemany("INSERT OR REPLACE INTO ended (run) VALUES (?)", [(run,) for run in waiting.ended])
        file.executemany("DELETE FROM ended WHERE run = ?", [(run,) for run in waiting.given_up])
        if waiting.ended:
            oldest = "SELECT coalesce(min(id), 9e18) FROM inputs WHERE run != ''"
            file.execute(f"DELETE FROM inputs WHERE run = '' AND id < ({oldest})")
            file.execute("DELETE FROM ended WHERE id <= (SELECT max(id) FROM ended) - ?", (_MAX_ENDED,))
            (states,) = file.execute("SELECT count(*) FROM memory").fetchone()
            if states > _MAX_STATES:
                old = "SELECT key FROM memory ORDER BY input LIMIT ?"
                file.execute(f"DELETE FROM memory WHERE key IN ({old})", (states - _MAX_STATES,))
        if self._read_up_to and time.monotonic() - self._compacted_at > _COMPACT_S:
            self._compact()
        if self._delivered > self._pruned:
            file.execute("INSERT OR REPLACE INTO meta VALUES ('delivered', ?)", (str(self._delivered),))
            delivered = "DELETE FROM published WHERE id > ? AND id <= ? AND stream = ?"
            file.execute(delivered, (self._pruned, self._delivered, _DELIVERED_ONCE))
            for run in [run for run, stop in self._closed.items() if stop <= self._delivered]:
                file.execute("DELETE FROM published WHERE run = ?", (run,))
                del self._closed[run]

    def _compact(self) -> None:
        """Delete inputs that are no longer needed, and the outcomes of frames that cannot come again."""
        file = self._file
        rows = [(run, stream, seq) for (run, stream), seq in self._read_up_to.items()]
        file.executemany("DELETE FROM inputs WHERE run = ? AND stream = ? AND seq <= ?", rows)
        oldest = "SELECT coalesce(min(id), 9e18) FROM inputs WHERE run = ? AND seq IS NOT NULL"
        for run in {run for run, _ in self._read_up_to}:
            file.execute(f"DELETE FROM outcomes WHERE run = ? AND input < ({oldest})", (run, run))
        file.execute("DELETE FROM inputs WHERE run = '' AND id < ?", (self._input - _MAX_UNKNOWN,))
        self._read_up_to.clear()
        self._compacted_at = time.monotonic()
