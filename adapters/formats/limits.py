"""The bytes of a file, gunzipped where they are zipped, and never more than fit."""

import zlib
from pathlib import Path

from .spectrum import SpectrumFileError

MAX_BYTES = 1 << 29
"""Largest file, and largest content of a gzipped one: some ten million lines."""
_CHUNK = 1 << 20


def read_bytes(path: Path) -> tuple[bytes, str | None]:
    """Return the content of a file, gunzipped, and how it breaks off (None: it does not).

    Raises:
        SpectrumFileError: larger than ``MAX_BYTES``, packed or not, or damaged within the zipped data.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise SpectrumFileError(f"{path}: found {size >> 20} MiB, expected at most {MAX_BYTES >> 20} MiB")
    raw = path.read_bytes()
    return _gunzip(path, raw) if raw[:2] == b"\x1f\x8b" else (raw, None)


def _gunzip(path: Path, raw: bytes) -> tuple[bytes, str | None]:
    parts: list[bytes] = []
    total, rest = 0, raw
    while rest[:2] == b"\x1f\x8b":  # zipped parts may follow one another
        unzip = zlib.decompressobj(wbits=31)
        while not unzip.eof:
            try:
                part = unzip.decompress(rest, _CHUNK)
            except zlib.error as error:
                raise SpectrumFileError(f"{path}: damaged gzip data ({error})") from error
            total += len(part)
            if total > MAX_BYTES:
                raise SpectrumFileError(f"{path}: found more than {MAX_BYTES >> 20} MiB once unzipped")
            parts.append(part)
            rest = unzip.unconsumed_tail
            if not part and not rest and not unzip.eof:
                return b"".join(parts), "the gzip data break off"
        rest = unzip.unused_data
    return b"".join(parts), None
