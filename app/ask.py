"""Sends commands to a running session of this user, over its Unix socket.

This module imports nothing heavy, since an emergency stop must not wait for an import.
"""

import getpass
import json
import os
import socket
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_S = 15.0
"""Longest wait for an answer, s."""
_IDENTITY_S = 2.0
"""Longest wait for a session to identify itself, s."""
MAX_BYTES = 65_536
"""Largest size of a request or an answer, bytes."""
_ANY_SESSION = ("status", "pending", "halt")
"""Commands that reach the only session even if this terminal addressed another one before: two of them change
nothing, and an emergency stop must not be refused."""


class Refused(ValueError):  # noqa: N818  named after the event
    """The command fits no session, or the session refuses it."""


@dataclass(frozen=True, slots=True)
class Running:
    """A running session."""

    socket: Path
    identity: Mapping[str, str]
    """Identity as the session states it: ``pid``, ``source``, ``out`` and ``sample``; if the session is busy, as it
    was at its start."""

    @property
    def key(self) -> str:
        """Output folder, which stays the same after a restart; without one, the process id."""
        return self.identity.get("out") or self.identity["pid"]

    def ask(
        self, command: str, by: str | None = None, timeout_s: float = TIMEOUT_S, **arguments: Any
    ) -> dict[str, Any]:
        """Send a command; return the answer, which has ``ok`` and, if this is false, ``error``.

        Raises
        ------
        Refused
            The session does not answer.
        """
        request = {"command": command, "by": by or getpass.getuser(), **arguments}
        try:
            return exchange(self.socket, request, timeout_s)
        except (OSError, ValueError) as error:
            raise Refused(f"{named(self.identity)} does not answer: {error}") from None

    def is_meant_by(self, session: str) -> bool:
        """Return whether a text names this session, by its process id or its output folder."""
        out = self.identity.get("out")
        return session == self.identity["pid"] or (bool(out) and Path(session).resolve() == Path(str(out)))


def named(identity: Mapping[str, str]) -> str:
    """Return a description of a session.

    >>> named({"pid": "4711", "source": "zmq://hutch:5578", "out": "/data/night1", "sample": "LCO-3"})
    'session 4711: zmq://hutch:5578, /data/night1, sample LCO-3'
    """
    about = [identity.get("source", ""), identity.get("out", "")]
    about += [f"sample {sample}"] if (sample := identity.get("sample")) else []
    return f"session {identity['pid']}: {', '.join(filter(None, about))}".removesuffix(": ")


def sockets_folders() -> list[Path]:
    """Return the folders that may hold sockets; some shells do not know the folder of the login session."""
    runtime = [Path(given) / "xas-agent"] if (given := os.environ.get("XDG_RUNTIME_DIR")) else []
    usual = [] if runtime else [Path(f"/run/user/{os.getuid()}/xas-agent")]
    return [*runtime, *usual, Path(tempfile.gettempdir()) / f"xas-agent-{os.getuid()}"]


def sockets_folder() -> Path:
    """Return the folder for the sockets of new sessions; create it if needed.

    Raises
    ------
    Refused
        Other users may enter the folder.
    """
    folders = sockets_folders()
    folder = folders[0] if os.environ.get("XDG_RUNTIME_DIR") else folders[-1]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(folder)
    return folder


def ask(command: str, session: str | None = None, **arguments: Any) -> dict[str, Any]:
    """Send a command to a running session of this user; return its answer.

    Parameters
    ----------
    session : str or None
        Process id or output folder of the session; None if only one runs. A command that acts is then refused if
        this terminal addressed another session last, unless it is ``halt``.

    Returns
    -------
    dict
        The answer, with the identity of the session under ``session``.

    Raises
    ------
    Refused
        No session or several run, it may not be the intended one, or it refuses the command.
    """
    meant = _choose(command, session)
    answer = meant.ask(command, **arguments)
    with suppress(OSError):  # a full disk
        _last_asked().write_text(json.dumps({"key": meant.key, "named": named(meant.identity)}), encoding="utf-8")
    if not answer.pop("ok", False):
        raise Refused(f"{named(meant.identity)}: {answer.get('error', 'refused')}")
    return answer


def _choose(command: str, session: str | None) -> Running:
    """Return the session that a command is for."""
    running = running_sessions()
    listed = "".join(f"\n  {named(found.identity)}" for found in running)
    if session is not None:
        meant = [found for found in running if found.is_meant_by(session)]
        if len(meant) == 1:
            return meant[0]
        raise Refused(f"no session {session} runs here; running:{listed or ' none'}")
    if not running:
        raise Refused("no session of this user runs here")
    if len(running) > 1:
        raise Refused(f"several sessions run; name one with --session PID or --session FOLDER:{listed}")
    [only] = running
    try:
        last = json.loads(_last_asked().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return only
    if command not in _ANY_SESSION and last["key"] != only.key:
        raise Refused(
            f"nothing was done: this terminal last asked {last['named']}, which has ended. Only another one runs:"
            f"{listed}\nif you mean it, add --session {only.identity['pid']}"
        )
    return only


def _last_asked() -> Path:
    """Return the file that records which session this terminal addressed last."""
    return sockets_folder() / f"terminal-{os.getsid(0)}.json"


def sessions() -> tuple[list[Running], list[Path]]:
    """Return the running sessions of this user, and the sockets that killed sessions left behind.

    Raises
    ------
    Refused
        Other users may enter the folder of the sockets.
    """
    found: list[Running] = []
    left: list[Path] = []
    for path in _sockets():
        try:
            answer = exchange(path, {"command": "session"}, _IDENTITY_S)
        except (ConnectionRefusedError, FileNotFoundError):
            left.append(path)
            continue
        except (OSError, ValueError):
            answer = {}
        found.append(Running(path, answer.get("session") or {"pid": path.stem, **_said_at_start(path)}))
    return found, left


def running_sessions() -> list[Running]:
    """Return the running sessions of this user; remove the sockets of killed ones."""
    found, left = sessions()
    for path in left:
        path.unlink(missing_ok=True)
        identity_file(path).unlink(missing_ok=True)
    return found


def identity_file(path: Path) -> Path:
    """Return the file beside a socket that identifies its session when the session is too busy to answer."""
    return path.with_suffix(".json")


def _said_at_start(path: Path) -> dict[str, str]:
    try:
        found = json.loads(identity_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _sockets() -> list[Path]:
    found: list[Path] = []
    for folder in sockets_folders():
        if folder.is_dir():
            _check_private(folder)
            found += sorted(folder.glob("*.sock"))
    return found


def exchange(
    path: Path, request: Mapping[str, Any], timeout_s: float | None, most: int = MAX_BYTES
) -> dict[str, Any]:
    """Send a request to a socket; return the answer.

    Parameters
    ----------
    timeout_s : float or None
        Longest wait for the answer, s; None waits without limit.
    most : int
        Largest size of the answer, bytes.

    Raises
    ------
    OSError
        Nothing listens, no answer arrives in time, or another user, whose answers are not trusted, owns the socket.
    ValueError
        The answer is not a JSON object.
    """
    if (owner := path.stat().st_uid) not in (os.getuid(), 0):
        raise PermissionError(f"a socket of user {owner}, expected one of your own")
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(timeout_s)
        link.connect(str(path))
        link.sendall(json.dumps(request).encode() + b"\n")
        answer = json.loads(link.makefile("rb").readline(most))
    if not isinstance(answer, dict):
        raise ValueError(f"found {answer!r:.80}, expected an object")
    return answer


def _check_private(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Refused(f"{folder}: others may enter it; remove it, or set XDG_RUNTIME_DIR to a folder of your own")
