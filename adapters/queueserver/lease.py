"""The lease of a queue server: one agent acts on it at a time.

It is a file that the agent locks. The system releases the lock when the process ends, whatever the cause, so that a
dead agent cannot keep the beamline (``docs/decisions/0033-lease-of-queue-servers.md``).
"""

import getpass
import os
import re
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from ...agent.types import get_logger

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

log = get_logger()

_SHARED = Path("/tmp")
"""Folder that all users of the machine share; not ``TMPDIR``, which may be one user's."""
_MODE = 0o666
"""Mode with which another user's agent may take over the file of a killed agent."""
_LONGEST_NOTE = 500
_REMOVED = "the lease {} was removed, so another agent may control this beamline; start this agent again to take it"


class FileLease:
    """A file that the controlling agent locks; any thread may call it.

    A person breaks the lease by removing the file: its holder then acts no more, and another agent can take it.

    Parameters
    ----------
    path : Path
    session : str
        Description of the holder, for messages to others.
    """

    def __init__(self, path: Path, session: str = "") -> None:
        self.path, self._session = path, session
        self._file: int | None = None
        """Descriptor of the locked file; None if this agent does not hold the lease."""
        self._never = ""
        """Why this agent must not take the lease again; empty if it may."""
        self._lock = threading.Lock()

    def take(self) -> str:
        """Take or keep the lease; return why this agent cannot have it, empty if it has it."""
        with self._lock:
            if fcntl is None:
                return ""
            if self._file is not None and not self._is_at_path(self._file):
                log.error("the lease of the beamline was removed", lease=str(self.path))
                self._never = _REMOVED.format(self.path)
                self._close()
            if self._never:
                return self._never
            try:
                if self._file is None:
                    return self._open()
                os.utime(self._file)  # so that no clean-up removes it as an old file
            except OSError as error:
                return f"the lease {self.path} cannot be locked: {error.strerror}; name another (queue_server.lease)"
            return ""

    def release(self) -> None:
        """Give the lease back, if this agent has it, and never take it again."""
        with self._lock:
            self._never = self._never or "the control is closed"
            if self._file is not None and self._is_at_path(self._file):
                with suppress(OSError):  # another user's file in a folder such as /tmp
                    self.path.unlink()
            self._close()

    def _open(self) -> str:
        """Lock the file, and write the holder's description into it."""
        assert fcntl is not None
        while True:
            file = _opened(self.path)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _holder(file)
                os.close(file)
                return f"{holder} controls this beamline; end it, or remove {self.path} if it hangs"
            except BaseException:
                os.close(file)
                raise
            if self._is_at_path(file):
                break
            os.close(file)  # its holder has just removed it
        self._file = file
        with suppress(OSError):  # the disk is full: the lock holds without a text
            os.truncate(file, 0)
            os.pwrite(file, _note(self._session).encode()[:_LONGEST_NOTE], 0)
        log.info("this agent controls the beamline", lease=str(self.path))
        return ""

    def _is_at_path(self, file: int) -> bool:
        """Return whether the open file is the one that the path names now."""
        with suppress(OSError):
            return os.path.samestat(os.fstat(file), self.path.stat())
        return False

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def lease_of(address: str) -> Path:
    """Return the file that all agents of this machine lock for a manager, by whatever name they reach its host.

    >>> lease_of("tcp://localhost:60615") == lease_of("tcp://127.0.0.1:60615")
    True
    """
    scheme, _, place = address.partition("://")
    if scheme == "tcp":
        host, _, port = place.rpartition(":")
        place = f"{_machine(host)}:{port}"
    return _SHARED / f"xas-agent-{re.sub(r'[^A-Za-z0-9.]+', '-', place).strip('-')}.lease"


def _machine(host: str) -> str:
    """Return the address of a machine, ``here`` for this one; the name itself if it is unknown."""
    try:
        found = socket.gethostbyname(host)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
            probe.bind((found, 0))  # succeeds only for addresses of this machine
            return "here"
    except OSError:
        return host.lower()
    return found


def _note(session: str) -> str:
    """Return the description of this agent."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        user = "a user"
    of = f"session {session} of" if session else "an agent of"
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"{of} {user} on {socket.gethostname()}, process {os.getpid()}, since {since}"


def _holder(file: int) -> str:
    """Return the description of a holder as one line of text, whatever the file contains."""
    text = os.pread(file, _LONGEST_NOTE, 0).decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text).strip() or "another agent"


def _opened(path: Path) -> int:
    """Open a file for a lock; create it if it does not exist."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        # No O_CREAT if the file exists: systems refuse that for another user's file in /tmp.
        with suppress(FileNotFoundError):
            return os.open(path, flags)
        with suppress(FileExistsError):
            file = os.open(path, flags | os.O_CREAT | os.O_EXCL, _MODE)
            os.fchmod(file, _MODE)  # independent of the umask
            return file
