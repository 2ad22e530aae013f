"""Estimates the descriptors of spectra in a program or notebook, as a table."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...adapters.formats import Columns, FileSpectrum
from ...agent.estimate import Answer
from ...agent.publish import ALIGNMENT_UNITS
from ...agent.types import Estimator, InputError, Reason, Refusal, validate_settings
from ...models.engines import ONNX_FILE, EngineName
from ..config import Config, load_config
from ..jobs.files import answers_of, refusal_of, refuse_without_model, serve_spectra
from ..jobs.infer import descriptor_columns, flat, rows_of
from ..output.data_frames import required
from ..wiring import model_folders
from .inputs import Item, items_of, spectra_of

if TYPE_CHECKING:
    import pandas as pd

_ABOUT = ("id", "source", "row", "time", "sample", "element", "model")
_QUALITY = ("ood_score", "e0_ev", "edge_step", "noise", "energy_shift_ev")


class SetAsideWarning(UserWarning):
    """Some spectra have no estimate; their rows state why."""


def infer(
    energy: Any,
    mu: Any = None,
    *,
    element: str | None = None,
    edge: str | None = None,
    model: str | Path | None = None,
    reference: Any = None,
    sample: str | Sequence[str] | None = None,
    theory: bool = False,
    everything: bool = False,
    columns: Columns | None = None,
    config: str | Path | Mapping[str, Any] | Config | None = None,
) -> "pd.DataFrame":
    """Estimate the descriptors of spectra; the numbers equal those of ``xas-agent infer``.

    Parameters
    ----------
    energy : ndarray, (M,) or (N, M)
        Energies, eV; rising or falling. Lists are accepted as arrays. Without ``mu``: a path (of a file or folder, or
        a pattern), a spectrum of :func:`read_spectra`, or a list of these.
    mu : ndarray, (M,) or (N, M), optional
        Absorption, not normalised or normalised. N arrays of different lengths may be given as a list.
    element, edge : str, optional
        Absorber and edge, such as ``"Co"`` and ``"K"``. Without them, the spectrum's own names or, without these, its
        energies choose the model.
    model : str or Path, optional
        Name of an installed model, or a model folder.
    reference : ndarray, (M,) or (N, M), optional
        Absorption of a foil measured at the same time, which calibrates the energies.
    sample : str or sequence of str, optional
        Name of the sample of all arrays, or one name for each.
    theory : bool
        Whether the spectra are computed, on FEFF's energies and normalisation.
    everything : bool
        Whether to include descriptors that have no meaning for a mixture of sites.
    columns : mapping, optional
        Columns of files by role, as for :func:`read_spectra`.
    config : str, Path, mapping or Config, optional
        As for :func:`load_config`; the other arguments replace its keys.

    Returns
    -------
    DataFrame
        One row per spectrum in the given order: ``id``, ``source``, ``row``, ``time`` (Unix s), ``sample``,
        ``element``, ``model``, the descriptors and ``ood_score`` as in descriptors.csv, quantities of the alignment,
            ``flags``, ``reason``, ``detail`` and the reader's ``notes``. A spectrum without an estimate has a
            ``reason``, a ``detail``, and NaN. ``attrs["units"]`` holds the unit of each column, ``attrs["models"]``
            the SHA-256 of each model.

    Raises
    ------
    InputError
            The arguments do not match, a file cannot be read, or no model matches any spectrum, or several do.

    Warns
    -----
    SetAsideWarning
            Spectra have no estimate; the message states the number for each reason.

    Examples
    --------
    >>> import numpy as np
    >>> from xas_agent import infer
    >>> energy = np.arange(7560.0, 8300.0)
    >>> mu = 0.3 + 1 / (1 + np.exp(-(energy - 7720) / 1.5)) + 0.3 * np.exp(-(((energy - 7726) / 4) ** 2))
    >>> table = infer(energy, [mu, 2 * mu], element="Co")
    >>> [*table["model"]], table.attrs["units"]["OS_mean"]
    (['co-k', 'co-k'], 'e')
    """
    required("pandas")
    settings = settings_of(config, model, element, edge, everything=everything)
    items: Sequence[Item]
    if mu is None:
        if reference is not None or sample is not None:
            raise InputError("infer: found reference or sample without mu, expected them with arrays only")
        items = items_of(energy, columns)
    else:
        items = spectra_of(energy, mu, reference, sample)
    served = _served(items, settings, theory=theory)
    table = _table(served, settings, theory=theory)
    _warn(served)
    return table


def settings_of(
    config: Any, model: str | Path | None, element: str | None, edge: str | None, *, everything: bool = False
) -> Config:
    """Return a config whose keys are replaced by the arguments."""
    settings = config if isinstance(config, Config) else load_config(config)
    content = settings.model_dump(exclude_unset=True)
    for part, key, value in (
        ("fields", "element", element),
        ("fields", "edge", edge),
        ("model", "use", None if model is None else (str(model),)),
        ("serving", "single_site", everything or None),
    ):
        if value is not None:
            content[part] = {**content.get(part, {}), key: value}
    return validate_settings(content, Config, "infer")


def loaded(config: Config) -> list[Estimator]:
    """Return the models of a config; models unchanged since they were loaded are not loaded again."""
    how = config.model
    return [_model(folder, how.device, how.engine, how.threads, _changed(folder)) for folder in model_folders(config)]


def answer_of(spectrum: FileSpectrum, config: Config, *, theory: bool = False) -> Answer | Refusal:
    """Return the alignment of one spectrum, without an estimate."""
    return dict(answers_of([spectrum], loaded(config), config, theory=theory, estimate=False))[0]


@lru_cache(maxsize=32)
def _model(
    folder: Path, device: str, engine: EngineName, threads: int | None, _changed: tuple[int, ...]
) -> Estimator:
    from ...models.runtime import Model

    model = Model(folder, device, engine, threads)
    model.warm_up()
    return model


def _changed(folder: Path) -> tuple[int, ...]:
    files = (folder / name for name in ("card.yaml", "model.ts", ONNX_FILE))
    return tuple(file.stat().st_mtime_ns for file in files if file.exists())


def _served(items: Sequence[Item], config: Config, *, theory: bool) -> list[tuple[FileSpectrum, Answer | Refusal]]:
    """Return the spectra with their answers, in the given order."""
    readable = [item for item in items if isinstance(item, FileSpectrum)]
    served = serve_spectra(readable, loaded(config) if readable else (), config, theory=theory)
    refuse_without_model(served, "choose one with model= or element=")
    answers = iter(served)
    return [next(answers) if isinstance(item, FileSpectrum) else item for item in items]


def _table(
    served: Sequence[tuple[FileSpectrum, Answer | Refusal]], config: Config, *, theory: bool
) -> "pd.DataFrame":
    pd = required("pandas")
    rows = rows_of(served, config, theory=theory)
    estimated = {key for row in rows for key in flat(row)}
    columns = [name for name in descriptor_columns(rows) if name in estimated] or _expected(config, theory=theory)
    numbers = ["time", *columns, *_QUALITY]
    names = [*_ABOUT, *numbers[1:], "flags", "reason", "detail", "notes"]
    flattened: list[dict[str, Any]] = []
    models: dict[str, Estimator] = {}
    for row, (spectrum, answer) in zip(rows, served, strict=True):
        refusal, used = refusal_of(answer), None if isinstance(answer, Refusal) else answer.model
        models |= {} if used is None else {used.name: used}
        found = {**row.get("alignment", {}), **flat(row)}
        found |= {"time": spectrum.time, "model": "" if used is None else used.name}
        found |= {"flags": ", ".join(row.get("flags", ())), "notes": "; ".join(spectrum.notes)}
        found |= dict(zip(("reason", "detail"), map(str, refusal or ("", "")), strict=True))
        flattened.append({name: found.get(name) for name in names})
    table = pd.DataFrame.from_records(flattened, columns=names)
    table[numbers] = table[numbers].astype(float)
    by_name = {"time": "s", **ALIGNMENT_UNITS, "ood_score": "dimensionless"}
    for one in models.values():
        for name, unit in one.units.items():
            by_name |= {name: unit, f"{name}_p": "dimensionless"}
            by_name |= {f"{name}_{part}": unit for part in ("mean", "lo", "hi", "sd_frame")}
    table.attrs["units"] = {name: by_name[name] for name in names if by_name.get(name)}
    table.attrs["models"] = {name: one.sha256 for name, one in models.items()}
    return table


def _expected(config: Config, *, theory: bool) -> list[str]:
    """Return the columns of the descriptors for a table in which no spectrum has an estimate."""
    shown = [
        name
        for model in loaded(config)
        for name in model.units
        if theory or config.serving.single_site or name not in model.single_site
    ]
    return [f"{name}_{part}" for name in dict.fromkeys(shown) for part in ("mean", "lo", "hi", "sd_frame")]


def _warn(served: Sequence[tuple[FileSpectrum, Answer | Refusal]]) -> None:
    reasons: Counter[Reason] = Counter(r.reason for _, answer in served if (r := refusal_of(answer)) is not None)
    if not reasons:
        return
    each = "; ".join(f"{count} × {reason}: {reason.remedy}" for reason, count in reasons.items())
    said = f"{reasons.total()} of {len(served)} spectra have no estimate (see reason and detail): {each}"
    warnings.warn(said, SetAsideWarning, stacklevel=3)
