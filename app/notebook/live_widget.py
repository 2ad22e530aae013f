"""The live widget: a thread sends changes, and the browser draws them."""

import threading
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ...agent.types import InputError, get_logger
from ..output.data_frames import Results
from .view import view_of

_log = get_logger()


class LiveWidget(anywidget.AnyWidget):
    """Shows results as they arrive; see :func:`widget`.

    Parameters
    ----------
    results : Results
    quantity : str or None
    every_s : float
    """

    _esm = Path(__file__).with_name("live.js")
    _css = Path(__file__).with_name("live.css")
    view = traitlets.Dict().tag(sync=True)
    """Data for the browser, from :func:`view_of`."""

    def __init__(self, results: Results, quantity: str | None = None, every_s: float = 1.0, **more: Any) -> None:
        self._results, self._quantity, self._shown = results, quantity, -1
        super().__init__(view=view_of(results, quantity), **more)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(every_s,), name="xas-agent-widget", daemon=True)
        self._thread.start()

    def refresh(self) -> None:
        """Send new data to the browser now."""
        documents = self._results.history.documents
        if documents != self._shown:
            self._shown = documents
            self.view = view_of(self._results, self._quantity)

    def close(self) -> None:
        """End the updates, and remove the widget from the notebook."""
        self._closed.set()
        super().close()

    def _follow(self, every_s: float) -> None:
        while not self._closed.wait(every_s):
            try:
                self.refresh()
            except InputError as error:  # the folder was removed
                self.view = {**self.view, "state": str(error)}
            except Exception:
                _log.exception("widget not refreshed")
