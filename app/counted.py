"""Numbers of things in words."""


def counted(count: int, one: str, several: str = "") -> str:
    """Return a number with its noun.

    Parameters
    ----------
    count : int
    one : str
        The noun for one.
    several : str
        The noun for several; by default with an s.

    Examples
    --------
    >>> counted(1, "frame"), counted(0, "frame"), counted(2, "spectrum", "spectra")
    ('1 frame', '0 frames', '2 spectra')
    """
    return f"{count} {one if count == 1 else several or f'{one}s'}"
