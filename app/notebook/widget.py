"""The entry point of the live widget; light to import, because anywidget belongs to an extra."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agent import XASAgent
from ..output.data_frames import Results, required
from .sessions import read_session

if TYPE_CHECKING:
    from .live_widget import LiveWidget


def widget(
    source: XASAgent | Results | str | Path, quantity: str | None = None, every_s: float = 1.0
) -> "LiveWidget":
    """Show an agent, or the folder that a session fills, live in a notebook.

    The widget shows a series with its repeatability, the latest spectrum over the first one, the numbers of frames
    answered and set aside, the last decision, and whether the experiment is paused. It continues while a cell runs a
    plan, needs no network, and cannot act on anything.

    Parameters
    ----------
    source : XASAgent, Results, str or Path
        An agent of this process, :func:`read_session`, or the folder of a session, possibly of another process.
    quantity : str, optional
        Descriptor or column; by default the oxidation state, or the first descriptor.
    every_s : float
        Shortest time between two updates, s.

    Returns
    -------
    LiveWidget
        A widget of anywidget; ``close()`` ends it.

    Raises
    ------
    InputError
        The folder has no documents of an agent.
    ImportError
        The extra ``[notebook]`` is not installed.
    """
    required("anywidget")
    from .live_widget import LiveWidget

    results: Any = read_session(source) if isinstance(source, str | Path) else source
    return LiveWidget(results.results if isinstance(results, XASAgent) else results, quantity, every_s)
