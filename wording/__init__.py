"""Numbers with their nouns."""


def counted(count: int, one: str, several: str = "") -> str:
    """Return a number with its noun.

    Parameters
    ----------
    count : int
    one : str
        The noun for one.
        The noun for one object.
        The noun for several; by default with an s.
    The noun for several objects; by default ``one`` with an s.
    Examples
    --------
    >>> counted(1, "frame"), counted(0, "frame"), counted(2, "spectrum", "spectra")
    ('1 frame', '0 frames', '2 spectra')
    """
    return f"{count} {one if count == 1 else several or f'{one}s'}"


def all_of(count: int, one: str) -> str:
    """Return words for all of a number of objects.

    >>> all_of(1, "event"), all_of(3, "event")
    ('the only event', 'all 3 events')
    """
    return f"the only {one}" if count == 1 else f"all {counted(count, one)}"
