"""Results of an agent as pandas DataFrames and xarray Datasets, with units."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...agent.types import InputError
from .history import History, KeptFrame

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

_FIRST_UNITS = {"time": "s", "datetime": "UTC"}
_LAST_COLUMNS = ("series", "frame_uid", "reason", "detail")
_TEXTS = ("run_uid", "sample", "file", "element", "flags", *_LAST_COLUMNS)
ENERGY = "energy on FEFF's scale − tabulated edge"
"""Description of the energies of aligned spectra."""


def required(package: str) -> Any:
    """Import a package of the extra ``[notebook]``.

    Raises
    ------
    ImportError
        The package is not installed; the message explains how to install it.
    """
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError as error:
        told = f"this requires the [notebook] extra: pip install 'xas-agent[notebook]' (no {error.name})"
        raise ImportError(told, name=error.name) from None


class Results:
    """The results of an agent: its frames, decisions and notes as tables.

    Each call reads the current results, even while the agent, or the session that fills the folder, is running.

    Parameters
    ----------
    history : History
    update : callable
        Called before each reading to bring the history up to date.
    """

    def __init__(self, history: History, update: Callable[[], None] = lambda: None) -> None:
        self._history, self._update = history, update

    def __repr__(self) -> str:
        count = len(self._kept(self.history, None, None))
        samples = ", ".join(self.samples[:3]) + ", …" * (len(self.samples) > 3)
        frames = f"{count} frame{'s' * (count != 1)}" + (f" of {samples}" if samples else "")
        return f"<Results: {frames}; .series() and .decisions() are tables, .dataset() has the spectra>"

    @property
    def history(self) -> History:
        """The contents of the documents, up to date."""
        self._update()
        return self._history

    @property
    def samples(self) -> list[str]:
        """Names of the samples, in the order of their first frames; the series replaces a missing name."""
        return list(dict.fromkeys(_sample_of(kept.row) for kept in self._kept(self.history, None, None)))

    @property
    def paused(self) -> str:
        """Why the experiment is paused, in words; empty if it is not."""
        return self.history.paused

    def frame(self) -> "pd.DataFrame":
        """Return the latest answered frame as a table of one row, as :meth:`series`; empty if there is none."""
        history = self.history
        with history.lock:
            answered = [kept for kept in history.frames if "ood_score" in kept.keys]
            return self._table_of([max(reversed(answered), key=_time)] if answered else [])

    def series(self, sample: str | None = None, element: str | None = None) -> "pd.DataFrame":
        """Return the frames in the order of time.

        Parameters
        ----------
        sample : str or None
            Name of a sample, or a series of :attr:`samples`; None for all.
        element : str or None
            Absorber; None for all.

        Returns
        -------
        DataFrame
                One row per frame. Rows of frames set aside have a ``reason`` and a ``detail``, and NaN for numbers.
                The columns are those of descriptors.csv, then ``series``, ``frame_uid``, ``reason`` and ``detail``.
                The index is the frame's own time (UTC). ``attrs["units"]`` holds the unit of each column,
                ``attrs["models"]`` the SHA-256 of each model. An agent keeps only its latest frames;
                ``attrs["frames_not_kept"]`` is the number of earlier ones.

        Raises
        ------
        InputError
            There is no such sample or element.
        """
        return self._series(sample, element)[0]

    def dataset(self, sample: str | None = None, element: str | None = None) -> "xr.Dataset":
        """Return the frames as :meth:`series` does, with their aligned spectra.

        Parameters
        ----------
        sample, element
            As for :meth:`series`.

        Returns
        -------
        Dataset
            A variable over ``time`` for each column, with ``units``, and ``spectrum`` over ``time`` and ``energy``
            (eV, on FEFF's scale, relative to the tabulated edge); NaN beyond the end of a spectrum and for frames set
            aside.

        Raises
        ------
        InputError
            There is no such sample or element, or the frames have several elements.
        """
        table, kept = self._series(sample, element)
        return _dataset(table, kept, self._history.versions)

    def decisions(self) -> "pd.DataFrame":
        """Return a row for each decision with its latest status, in order; the columns are those of decisions.csv."""
        history = self.history
        with history.lock:
            rows = [dict(row) for row in history.decisions.values()]
        columns = dict.fromkeys(key for row in rows for key in row)  # later statuses have more columns
        return _table(rows, [*columns] or ("time", "id", "rule", "action", "status", "reason"), history.units)

    def set_aside(self) -> "pd.DataFrame":
        """Return a row for each note on frames set aside and documents lost, in order."""
        history = self.history
        with history.lock:
            rows = list(history.notes)
        columns = rows[0] if rows else ("time", "sample", "uid", "reason", "detail", "count")
        return _table(rows, columns, history.units)

    def _series(self, sample: str | None, element: str | None) -> "tuple[pd.DataFrame, list[KeptFrame]]":
        history = self.history
        with history.lock:
            kept = sorted(self._kept(history, sample, element), key=_time)
            return self._table_of(kept), kept

    def _table_of(self, kept: Sequence[KeptFrame]) -> "pd.DataFrame":
        history = self._history
        columns = [*dict.fromkeys([*history.recorder.columns(), *_LAST_COLUMNS])]
        table = _table([one.row for one in kept], columns, history.units)
        table.attrs["models"] = dict(history.recorder.models)
        table.attrs["frames_not_kept"] = history.numbered - len(history.frames)
        return table

    @staticmethod
    def _kept(history: History, sample: str | None, element: str | None) -> list[KeptFrame]:
        with history.lock:
            kept = list(history.frames)
        for name, wanted, of in (("sample", sample, _sample_of), ("element", element, lambda row: row["element"])):
            if wanted is None:
                continue
            found = dict.fromkeys(of(one.row) for one in kept)
            if wanted not in found:
                there_are = ", ".join(map(repr, found)) or "no frames yet"
                raise InputError(f"{name}: found {wanted!r}, expected one of {there_are}")
            kept = [one for one in kept if of(one.row) == wanted]
        return kept


def _sample_of(row: Mapping[str, Any]) -> str:
    return str(row["sample"] or row["series"])


def _time(kept: KeptFrame) -> float:
    return kept.values[kept.keys.index("time")]


def _table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | Mapping[str, Any], units: Mapping[str, str]
) -> "pd.DataFrame":
    """Return rows as a DataFrame that is indexed by time, UTC."""
    pd = required("pandas")
    table = pd.DataFrame.from_records(list(rows), columns=list(columns)) if rows else pd.DataFrame(columns=columns)
    texts = [name for name in _TEXTS if name in table]
    table[texts] = table[texts].astype(object).where(table[texts].notna(), "").astype(str)
    table.index = pd.to_datetime(table["time"].astype(float), unit="s", utc=True)
    table.index.name = "datetime"
    table.attrs["units"] = {name: unit for name in table if (unit := _FIRST_UNITS.get(name) or units.get(name))}
    return table


def _dataset(table: "pd.DataFrame", kept: Sequence[KeptFrame], versions: Mapping[str, str]) -> "xr.Dataset":
    xr = required("xarray")
    grids = {one.grid.tobytes(): one.grid for one in kept if one.grid is not None}
    if len(grids) > 1:
        elements = ", ".join(map(repr, dict.fromkeys(table["element"])))
        raise InputError(f"dataset: found spectra of the elements {elements}, expected those of one: name element=")
    grid = next(iter(grids.values()), np.empty(0))
    spectra = np.full((len(kept), len(grid)), np.nan, np.float32)
    for row, one in zip(spectra, kept, strict=True):
        if one.spectrum is not None:
            row[:] = one.spectrum
    units = table.attrs["units"]
    at = table.index.to_numpy("datetime64[ns]")  # without a zone; the index is UTC
    dataset = xr.Dataset(
        {
            name: ("time", table[name].to_numpy(dtype=object if name in _TEXTS else None), _attributes(units, name))
            for name in table
            if name != "time"
        },
        coords={
            "time": ("time", at, {"long_name": "time of the frame, UTC"}),
            "energy": ("energy", grid, {"units": "eV", "long_name": ENERGY}),
        },
        attrs={
            "models": ", ".join(f"{name} {sha}" for name, sha in table.attrs["models"].items()),
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        },
    )
    dataset["spectrum"] = (("time", "energy"), spectra, {"units": "dimensionless", "long_name": "aligned μ"})
    return dataset


def _attributes(units: Mapping[str, str], name: str) -> dict[str, str]:
    return {"units": units[name]} if name in units else {}
