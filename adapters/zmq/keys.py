"""CURVE certificates as files: a folder holds the keys of a beamline and the folder of permitted clients."""

import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

import zmq.auth
from zmq.utils import z85

from ...agent.types import InputError, get_logger

log = get_logger()

CLIENTS, REVOKED = "clients", "revoked"
"""Folders, inside that of the keys, with the public certificates of permitted and of revoked clients."""

_NAME = re.compile(r"[\w.-]{1,64}")


def read_certificate(path: Path) -> tuple[bytes, bytes | None]:
    """Return the public key and, if the file contains it, the secret key.

    Raises
    ------
    InputError
        The file is not a CURVE certificate.
    """
    try:
        public, secret = zmq.auth.load_certificate(path)
        if any(len(z85.decode(key)) != 32 for key in (public, secret or public)):
            raise ValueError("a key does not have 40 characters")
    except (OSError, ValueError, LookupError) as error:
        raise InputError(
            f"{path}: not a CURVE certificate ({error}), expected a file of xas-agent keys make"
        ) from error
    return public, secret


def make_keys(folder: Path, name: str, *, client: bool) -> Path:
    """Create a pair of keys in ``folder``, and permit it if it is a client's; return the file with the secret key.

    Raises
    ------
    InputError
        The name is not valid as a file name, or keys with this name exist, including revoked ones.
    """
    public = folder / f"{name}.key"
    secret = folder / f"{name}.key_secret"
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise InputError(f"found the name {name!r}, expected letters, digits, - and _")
    for path in (public, secret, folder / CLIENTS / public.name, folder / REVOKED / public.name):
        if path.exists():
            raise InputError(f"{path} exists; choose another name")
    (folder / CLIENTS).mkdir(parents=True, exist_ok=True)
    # create_certificates keeps the mode of an existing file; a new file would be readable for others.
    _create_private(secret)
    zmq.auth.create_certificates(folder, name)
    if client:
        _copy_whole(public, folder / CLIENTS / public.name)
    return secret


def make_secret(path: Path) -> None:
    """Write a random shared secret to a new file that only its owner may read.

    Raises
    ------
    InputError
        The file exists.
    """
    _create_private(path, secrets.token_hex(32) + "\n")


def revoke(folder: Path, name: str) -> None:
    """Move a client's certificate, under whatever name it is permitted, to the folder of revoked ones.

    Raises
    ------
    InputError
        No permitted client has this name.
    """
    clients = folder / CLIENTS
    path = clients / f"{name}.key"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in clients.glob("*.key"))) or "none"
        raise InputError(f"no permitted client {name!r} in {clients}; there are: {known}")
    key = read_certificate(path)[0]
    (folder / REVOKED).mkdir(exist_ok=True)
    for same in [p for p in clients.glob("*.key") if _key_or_none(p, set()) == key]:
        same.rename(folder / REVOKED / same.name)


def public_keys(paths: Iterable[Path], logged: set[Path] | None = None) -> dict[str, str]:
    """Return the public keys of certificates by name; a file that is not a certificate is left out.

    Such a file is logged and added to ``logged``, unless it is already there.
    """
    logged = set() if logged is None else logged
    keys = {path.stem: _key_or_none(path, logged) for path in sorted(paths)}
    return {name: key.decode() for name, key in keys.items() if key is not None}


def _key_or_none(path: Path, logged: set[Path]) -> bytes | None:
    try:
        return read_certificate(path)[0]
    except InputError as error:
        if path not in logged:
            logged.add(path)
            log.warning("certificate not readable: its client is not permitted", detail=str(error))
        return None


def _create_private(path: Path, content: str = "") -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a file such that a reader of the folder never sees a part of it."""
    partial = target.with_suffix(".part")
    partial.write_bytes(source.read_bytes())
    partial.rename(target)
