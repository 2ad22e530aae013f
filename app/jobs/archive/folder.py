"""The output folder of a backfill: complete parts, and a manifest of their contents."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ....agent.types import InputError, get_logger
from ...output.opening import lock_folder
from .work import ABOUT, NAMED, Part, Piece, Written

_log = get_logger()

MANIFEST = "_manifest.jsonl"
"""File with a line per part. Readers of folders of Parquet tables skip names that begin with _ or a dot."""
_OWN = (".lock", f".{ABOUT}.tmp")
"""Files that a backfill may leave if it is killed at its very start."""


class ArchiveFolder:
    """The parts of a backfill, each of which is in the folder completely or not at all.

    A worker writes a part under a hidden name; :meth:`keep` renames it and then adds it to the manifest. A part that
    is not in the manifest was interrupted between the two steps: when the backfill continues, the part is removed and
    its spectra are read again. Thus no spectrum is lost, and none occurs twice.

    Parameters
    ----------
    folder : Path
        New or empty folder, or that of the same backfill.
    identity : mapping
        Settings that must be equal, as JSON values.
    write : bool
        Whether to create and lock the folder; otherwise it is only read.

    Raises
    ------
    InputError
        The folder has other contents, belongs to another backfill, or is in use.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, write: bool = True) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.rows = 0
        """Number of rows in all parts."""
        self.set_aside: Counter[str] = Counter()
        """Number of rows without an estimate in all parts, by reason."""
        self.refused: list[tuple[str, str]] = []
        """The first sources that cannot be read, with the reasons."""
        self._done: dict[int, int] = {}
        """Digest of each piece's state, by the digest of its identity, so that a million files fit in memory."""
        self._parts: set[str] = set()
        self._next = 0
        self._lock = lock_folder(self.folder) if write else None
        try:
            self._check(identity)
            self._read_manifest(repair=write)
            if write:
                self._begin(identity)
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise

    def close(self) -> None:
        """Remove unfinished files, and unlock the folder."""
        if self._lock is not None:
            for path in self.folder.glob(".part-*.tmp"):
                path.unlink(missing_ok=True)
            self._lock.release()

    def state_of(self, piece: Piece) -> bool | None:
        """Return whether the source of a piece is unchanged; None if no part contains the piece."""
        known = self._done.get(_identity(piece))
        return None if known is None else known == _digest(piece.state)

    def keep(self, part: Part, written: Written) -> None:
        """Rename a part to its final name, and add it to the manifest.

        Raises
        ------
        OSError
            The disk cannot store it; a later call then computes the part again.
        """
        name = f"part-{self._next:06d}.parquet"
        os.rename(self.folder / written.file, self.folder / name)
        _sync(self.folder)
        record = {
            "part": name,
            "rows": written.rows,
            "set_aside": dict(written.set_aside),
            "refused": [*written.refused],
            "pieces": [[p.kind, p.source, p.state, p.first, p.stop] for p in part.pieces],
        }
        with (self.folder / MANIFEST).open("ab") as file:
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(record)

    def _take(self, record: Mapping[str, Any]) -> None:
        self._parts.add(record["part"])
        self._next = max(self._next, int(record["part"][5:-8]) + 1)
        self.rows += record["rows"]
        self.set_aside.update(record["set_aside"])
        self.refused = [*self.refused, *record.get("refused", ())][:NAMED]  # earlier versions recorded none
        for kind, source, state, first, stop in record["pieces"]:
            self._done[_identity(Piece(kind, source, state, first, stop))] = _digest(state)

    def _check(self, identity: Mapping[str, Any]) -> None:
        about = self.folder / ABOUT
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder}: found a file, expected a folder; name another --out")
        if about.exists():
            try:
                before = dict(json.loads(about.read_text(encoding="utf-8")))
            except (ValueError, TypeError):
                raise InputError(f"{about}: found no JSON, expected that of a backfill; name another --out") from None
            other = [name for name, value in identity.items() if before.get(name) != value]
            if other:
                raise InputError(
                    f"{self.folder}: found a backfill with other {' and '.join(other)}, expected the same command; "
                    "name another --out"
                )
        elif self.folder.exists() and (there := [n for n in sorted(os.listdir(self.folder)) if n not in _OWN]):
            raise InputError(
                f"{self.folder}: found {there[0]}, expected a new or empty folder, or that of the same backfill; "
                "name another --out"
            )

    def _read_manifest(self, *, repair: bool) -> None:
        """Read the manifest; cut off an incomplete last line."""
        path, end = self.folder / MANIFEST, 0
        if not path.exists():
            return
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._take(json.loads(line))
                except (ValueError, TypeError, KeyError):  # to continue would remove the parts on this line
                    raise InputError(
                        f"{path}: line {number} is damaged, expected that of a part; name another --out"
                    ) from None
                end += len(line)
        if repair and end < path.stat().st_size:
            _log.warning("incomplete line cut", file=str(path), bytes=path.stat().st_size - end)
            os.truncate(path, end)

    def _begin(self, identity: Mapping[str, Any]) -> None:
        """Remove the remains of an interruption, and record the identity of the backfill."""
        for path in list(self.folder.iterdir()):
            unknown = path.name.startswith("part-") and path.name not in self._parts
            if unknown or (path.name.startswith(".part-") and path.name.endswith(".tmp")):
                path.unlink()
        if missing := [name for name in sorted(self._parts) if not (self.folder / name).exists()]:
            raise InputError(
                f"{self.folder}: found no {missing[0]}, which {MANIFEST} names, expected the folder as it was left; "
                "bring the part back, or name another --out"
            )
        about = self.folder / ABOUT
        if not about.exists():
            new = about.with_name(f".{ABOUT}.tmp")
            new.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")
            os.replace(new, about)


def _identity(piece: Piece) -> int:
    return _digest(f"{piece.source}\n{piece.first}")


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest())


def _sync(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    if not hasattr(os, "O_DIRECTORY"):
        return  # on Windows
    descriptor = os.open(folder, os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
