"""``xas-agent infer``: estimates of spectra in files."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...adapters.formats import Columns, FileSpectrum, SpectrumFileError
from ...agent.estimate import Answer
from ...agent.types import Reason, Refusal, get_logger
from ..config import Config
from ..wiring import load_models
from .files import ChoiceError, answers_of, read_and_log

_log = get_logger()


def infer_files(
    files: Sequence[Path],
    config: Config,
    *,
    theory: bool,
    columns: Columns | None = None,
    refused: list[SpectrumFileError] | None = None,
) -> list[dict[str, Any]]:
    """Estimate the descriptors of all spectra of files.

    Parameters
    ----------
    files : sequence of Path
    config : Config
    theory : bool
        Whether the spectra are computed, on FEFF's energies and normalisation.
    columns : mapping, optional
        As for :func:`read_spectra`.
    refused : list of SpectrumFileError, optional
        Gets the errors of the files that cannot be read; without it, the first error is raised.

    Returns
    -------
    list of dict
        One row per spectrum, in the order of the files: ``id``, ``source``, ``row``, ``sample`` (or the title of the
        scan), ``element``, and either ``set_aside`` with the reason, or ``ood_score``, ``flags``, ``alignment`` (its
        quantities) and, per descriptor, ``mean``, ``lo``, ``hi`` and, for classified ones, ``value`` and ``p``. Rows
        of measured spectra omit the descriptors that have no meaning for a mixture of sites, unless
        ``config.serving.single_site`` is set.

    Raises
    ------
    SpectrumFileError
        A file cannot be read, or with ``refused``: none of the files.
    ChoiceError
        Several models match a spectrum, or none matches any spectrum, and the config names none.
    """
    models = load_models(config)
    everything = theory or config.serving.single_site  # a computed spectrum belongs to one site
    spectra = read_and_log(files, columns, refused)
    rows: dict[int, dict[str, Any]] = {}
    refusals: list[Refusal] = []
    models_used: Counter[str] = Counter()
    for i, answer in answers_of(spectra, models, config, theory=theory):
        model = None if isinstance(answer, Refusal) else answer.model
        hidden = model.single_site if model is not None and not everything else frozenset()
        rows[i] = {k: v for k, v in _row(spectra[i], answer).items() if k not in hidden}
        models_used.update([model.name] if model is not None else ())
        refusals += [answer] if isinstance(answer, Refusal) else [answer.refusal] if answer.refusal else []
    for name, number in models_used.items():
        _log.info("model", name=name, spectra=number)
    if refusals and len(refusals) == len(spectra) and all(r.reason is Reason.NO_MODEL for r in refusals):
        raise ChoiceError(f"{refusals[0]}; choose one with --model or --element")
    return [rows[i] for i in range(len(spectra))]


def render(rows: Sequence[dict[str, Any]], form: str) -> None:
    """Print the rows of ``infer_files`` on stdout in the form ``table``, ``json`` or ``csv``."""
    if form == "json":
        json.dump(_plain(rows), sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    elif form == "csv":
        _render_csv(rows)
    else:
        _render_table(rows)


def _plain(value: Any) -> Any:
    """Replace NaN by None, because JSON has no NaN."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _row(spectrum: FileSpectrum, answer: Answer | Refusal) -> dict[str, Any]:
    """Return one row of ``infer_files``."""
    model = None if isinstance(answer, Refusal) else answer.model
    row: dict[str, Any] = {"id": spectrum.id, "source": spectrum.source, "row": spectrum.row}
    row |= {"sample": spectrum.sample_or_title, "element": model.absorber if model else spectrum.element or ""}
    if isinstance(answer, Refusal) or answer.refusal is not None or answer.estimate is None:
        refusal = answer if isinstance(answer, Refusal) else answer.refusal
        return {**row, "set_aside": str(refusal)}
    row |= {"ood_score": answer.estimate.ood_score, "flags": [*answer.flags]}
    for name, d in answer.estimate.descriptors.items():
        classified = {} if d.value is None else {"value": d.value, "p": d.p}
        row[name] = {**classified, "mean": d.mean, "lo": d.lo, "hi": d.hi}
    return {**row, "alignment": dict(answer.quantities)}


def _descriptors(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(k for a in rows for k, v in a.items() if isinstance(v, dict) and "lo" in v))


def _render_csv(rows: Sequence[dict[str, Any]]) -> None:
    names = _descriptors(rows)
    columns = ["id", "source", "row", "sample", "element", "set_aside"]
    columns += [c for d in names for c in (d, f"{d}_p", f"{d}_mean", f"{d}_lo", f"{d}_hi")] + ["ood_score", "flags"]
    writer = csv.DictWriter(sys.stdout, columns, restval="", extrasaction="ignore")
    writer.writeheader()
    for a in rows:
        row = {**a, "flags": ", ".join(a.get("flags", ()))}
        for d in names:
            e = row.pop(d, {})
            row |= {d: e.get("value", ""), **{f"{d}_{k}": e.get(k, "") for k in ("p", "mean", "lo", "hi")}}
        writer.writerow(row)


def _render_table(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = _descriptors(rows)
    table = Table()
    for column in ("spectrum", *names, "score", "flags"):
        table.add_column(column, justify="left" if column in ("spectrum", "flags") else "right")
    for a in rows:
        name = Text(", ".join(part for part in (a["id"], a["sample"], a["element"]) if part))
        if "set_aside" in a:
            table.add_row(name, *[""] * len(names), "", f"set aside: {a['set_aside']}")
            continue
        # Models differ in their descriptors.
        cells = [f"{a[d]['mean']:.2f} ({a[d]['lo']:.2f}…{a[d]['hi']:.2f})" if d in a else "–" for d in names]
        table.add_row(name, *cells, f"{a['ood_score']:.2f}", ", ".join(a["flags"]))
    Console(width=None if sys.stdout.isatty() else 180).print(table)
