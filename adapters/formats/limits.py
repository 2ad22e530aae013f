"""Reads the content of a file, decompressed if it is gzipped, up to a size limit."""

import zlib
from pathlib import Path

from .spectrum import SpectrumFileError

MAX_BYTES = 1 << 29
"""Largest size of a file, and of a gzipped file's content, bytes: about ten million lines."""
_CHUNK = 1 << 20


def read_bytes(path: Path) -> tuple[bytes, str | None]:
    """Read a file and decompress it if it is gzipped.

    Returns
    -------
    raw : bytes
    cut : str or None
        How the data end early; None if they are complete.

    Raises
    ------
    SpectrumFileError
        The file or its decompressed content exceeds ``MAX_BYTES``, or the gzip data are damaged.
    OSError
        The file cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise SpectrumFileError(f"{path}: found {size >> 20} MiB, expected at most {MAX_BYTES >> 20} MiB")
    raw = path.read_bytes()
    return _gunzip(path, raw) if raw[:2] == b"\x1f\x8b" else (raw, None)


def _gunzip(path: Path, raw: bytes) -> tuple[bytes, str | None]:
    parts: list[bytes] = []
    total, rest = 0, raw
    while rest[:2] == b"\x1f\x8b":  # a gzip file may have several members
        unzip = zlib.decompressobj(wbits=31)
        while not unzip.eof:
            try:
                part = unzip.decompress(rest, _CHUNK)
            except zlib.error as error:
                raise SpectrumFileError(f"{path}: damaged gzip data ({error})") from error
            total += len(part)
            if total > MAX_BYTES:
                raise SpectrumFileError(f"{path}: found more than {MAX_BYTES >> 20} MiB after decompression")
            parts.append(part)
            rest = unzip.unconsumed_tail
            if not part and not rest and not unzip.eof:
                return b"".join(parts), "the gzip data end early"
        rest = unzip.unused_data
    return b"".join(parts), None
