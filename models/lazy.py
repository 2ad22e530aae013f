"""A model whose network is loaded only for its first estimate."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..agent.types import Array, Estimate, get_logger
from . import card as cards
from .engines import EngineName, check_engine

if TYPE_CHECKING:
    from .runtime import Model

_log = get_logger()


class LazyModel:
    """A model folder whose network is loaded for its first estimate; implements :class:`Estimator`.

    The spectra of some files need one or two of the installed models, and an alignment needs none.

    Parameters
    ----------
    folder, device, engine, threads
        As for :class:`~xas_agent.models.runtime.Model`.

    Raises
    ------
    ModelError
        The folder is not a model, a file does not match its card, or the engine is not available.
    """

    def __init__(
        self, folder: Path, device: str = "auto", engine: EngineName = "torchscript", threads: int | None = None
    ) -> None:
        card = cards.verify(folder)
        check_engine(folder, card, engine, device)
        self._folder = folder
        self._how: tuple[str, EngineName, int | None] = device, engine, threads
        self.name, self.sha256 = card.name, card.sha256
        self.grid, self.edge = card.grid.grid(), card.edge_of_absorber()
        self.absorber, self.edge_name = card.absorber, card.edge
        self.units = {d.name: d.unit for d in card.descriptors}
        self.reach = {d.name: d.reach() for d in card.descriptors}
        self.single_site = frozenset(d.name for d in card.descriptors if not d.mixture)
        self.hardly_known = card.hardly_known
        self._model: Model | None = None
        self._failure = ""
        self._loading = threading.Lock()

    @property
    def obstacle(self) -> str:
        """Why the model cannot estimate at present; empty once it is loaded."""
        return "" if self._model is not None else self._failure or f"{self.name} is not loaded yet"

    def check(self) -> None:
        """Raise :class:`~xas_agent.models.card.ModelError` if its network could not be loaded."""
        if self._failure:
            raise cards.ModelError(self._failure)

    def load(self, *, warm_up: bool = False) -> "Model":
        """Load the network once, from any thread, and with ``warm_up`` run it until it has its full speed.

        Raises
        ------
        ModelError
            The network cannot be loaded, or its file has changed since the card was read. Later calls do not retry.
        """
        if self._model is not None:
            return self._model
        with self._loading:
            self.check()
            if self._model is None:
                try:
                    model = self._loaded()
                except cards.ModelError as error:
                    self._failure = str(error)
                    raise
                if warm_up:
                    model.warm_up()
                self._model = model
        return self._model

    def _loaded(self) -> "Model":
        from .runtime import Model

        model = Model(self._folder, *self._how)
        if model.sha256 != self.sha256:  # documents already carry the other hash
            raise cards.ModelError(f"{self._folder}: found another model than at the start; start again to use it")
        return model

    def estimate(
        self, spectra: NDArray[np.float32], extra_sd: Mapping[str, Array] | None = None
    ) -> Sequence[Estimate]:
        """Return estimates as :meth:`Estimator.estimate` does."""
        return self.load().estimate(spectra, extra_sd)


class Loading:
    """Loads models one after another on a separate thread; a model that is needed earlier loads at once."""

    def __init__(self, models: Sequence[LazyModel]) -> None:
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(models,), name="models", daemon=True)
        self._thread.start()

    def _work(self, models: Sequence[LazyModel]) -> None:
        for model in models:
            if self._ending.is_set():
                return
            try:
                model.load(warm_up=True)
            except Exception as error:  # the answers of its frames will report it
                _log.error("model not loaded", model=model.name, error=str(error))
        import scipy.special  # noqa: F401  trends and rules need it: its import would delay their first judgement

    def close(self) -> None:
        """Load no further models; wait for the one in progress."""
        self._ending.set()
        self._thread.join()
