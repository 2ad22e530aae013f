"""The text of files of unknown encoding."""

import re

import numpy as np

UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks with which Windows programs begin files of UTF-16."""

_RAW_BYTE = re.compile("[\udc80-\udcff]")
"""A byte that Python could not decode in the name of a file."""


def writable(text: str) -> str:
    r"""Return a text that UTF-8 can hold.

    Bytes of a file's name that are no UTF-8 are read as CP1252, and halves of characters, as in JSON, become ``?``.

    >>> writable("Pr\udce4parat \ud83d"), writable("Präparat")
    ('Präparat ?', 'Präparat')
    """
    if text.isascii():
        return text
    whole = _RAW_BYTE.sub(lambda found: bytes([ord(found[0]) - 0xDC00]).decode("cp1252", "replace"), text)
    return whole.encode(errors="replace").decode()


def decoded(raw: bytes, *, cut: bool = False) -> tuple[str, str]:
    """Decode a text as UTF-8, UTF-16 (with or without byte order mark), or else Latin-1.

    Parameters
    ----------
    raw : bytes of the whole file
    cut : whether the bytes may end within a character

    Returns
    -------
    text : without byte order mark
    note : how the encoding was guessed; empty if the bytes tell it

    >>> decoded("µ".encode("utf-16")), decoded("µ".encode("latin-1"))
    (('µ', ''), ('µ', 'not UTF-8: read as Latin-1'))
    """
    if raw[:2] in UTF_16_MARKS:
        return _whole_units(raw).decode("utf-16", errors="replace"), ""
    if wide := _unmarked_utf16(raw):
        return _whole_units(raw).decode(wide, errors="replace"), f"read as {wide.upper()}"
    try:
        return raw.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        if cut and error.start > len(raw) - 4:
            return raw[: error.start].decode("utf-8-sig"), ""
        return raw.decode("latin-1"), "not UTF-8: read as Latin-1"


def _whole_units(raw: bytes) -> bytes:
    return raw[: len(raw) // 2 * 2]


def _unmarked_utf16(raw: bytes) -> str | None:
    """Return the byte order of UTF-16 in which nearly all characters are of Latin-1; None for other bytes."""
    sample = np.frombuffer(_whole_units(raw[:4096]), np.uint8).reshape(-1, 2)
    if len(sample) < 8:
        return None
    zeros = (sample == 0).mean(axis=0)
    if zeros[1] > 0.9 and zeros[0] < 0.1:
        return "utf-16-le"
    return "utf-16-be" if zeros[0] > 0.9 and zeros[1] < 0.1 else None
