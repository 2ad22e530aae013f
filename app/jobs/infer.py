"""``xas-agent infer``: estimates the descriptors of spectra in files."""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...adapters.files import Batch
from ...adapters.formats import Columns, FileSpectrum
from ...agent.estimate import Answer
from ...agent.types import Refusal, get_logger, keys_of
from ..config import Config
from ..output.cells import TableWriter
from .files import distinct_ids, refusal_of, serve_files

_log = get_logger()


def infer_files(
    files: Sequence[Path],
    config: Config,
    *,
    theory: bool,
    columns: Columns | None = None,
    batch: Batch | None = None,
) -> list[dict[str, Any]]:
    """Estimate the descriptors of all spectra in files.

    Parameters
    ----------
    files : sequence of Path
    config : Config
    theory : bool
        Whether the spectra are computed, on FEFF's energies and normalisation.
    columns : mapping, optional
        As for :func:`read_spectra`.
    batch : Batch, optional
        As for :func:`~xas_agent.app.jobs.files.serve_files`.

    Returns
    -------
    list of dict
        One row per spectrum, in the order of the files: ``id``, ``source``, ``row``, ``sample`` (or the title of the
        scan), ``element``, and either ``set_aside`` with the reason, or ``ood_score``, ``flags``, ``alignment`` (its
        quantities) and, per descriptor, ``mean``, ``lo``, ``hi``, ``sd_frame`` and, for classified ones, ``value``
        and ``p``. Rows of measured spectra omit the descriptors that have no meaning for a mixture of sites, unless
        ``config.serving.single_site`` is set.

    Raises
    ------
    SpectrumFileError, ChoiceError
        As for :func:`~xas_agent.app.jobs.files.serve_files`.
    """
    served = serve_files(files, config, columns, batch, theory=theory)
    models = [answer.model.name for _, answer in served if isinstance(answer, Answer) and answer.model is not None]
    for name, number in Counter(models).items():
        _log.info("model", name=name, spectra=number)
    return rows_of(served, config, theory=theory)


def rows_of(
    served: Sequence[tuple[FileSpectrum, Answer | Refusal]], config: Config, *, theory: bool
) -> list[dict[str, Any]]:
    """Return the rows of :func:`infer_files` for served spectra."""
    everything = theory or config.serving.single_site  # a computed spectrum belongs to one site
    rows: list[dict[str, Any]] = []
    for spectrum, answer in served:
        model = None if isinstance(answer, Refusal) else answer.model
        hidden = model.single_site if model is not None and not everything else frozenset()
        rows.append({k: v for k, v in _row(spectrum, answer).items() if k not in hidden})
    return rows


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its descriptors under the keys of descriptors.csv: ``OS``, ``OS_mean``, ``OS_lo``, …"""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict) and "lo" in value:
            found |= {key if part == "value" else f"{key}_{part}": number for part, number in value.items()}
        else:
            found[key] = value
    return found


def descriptor_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys of all descriptors in the rows, in the order of descriptors.csv."""
    return [column for name in _descriptors(rows) for column in keys_of(name)]


def render(rows: Sequence[dict[str, Any]], form: str, file: IO[str] | None = None, width: int | None = None) -> None:
    """Print the rows of ``infer_files`` in the form ``table``, ``json`` or ``csv``.

    Parameters
    ----------
    rows : sequence of dict
    form : str
    file : IO, optional
        Where to print; by default stdout.
    width : int, optional
        Width of a table, as for :func:`~xas_agent.app.output.tables.print_table`.
    """
    out: Any = file or sys.stdout
    if form == "json":
        json.dump(_plain(rows), out, indent=1, allow_nan=False)
        out.write("\n")
    elif form == "csv":
        _render_csv(rows, out)
    else:
        _render_table(rows, out, width)


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
        return {**row, "set_aside": str(refusal_of(answer))}
    row |= {"ood_score": answer.estimate.ood_score, "flags": [*answer.flags]}
    for name, d in answer.estimate.descriptors.items():
        classified = {} if d.value is None else {"value": d.value, "p": d.p}
        row[name] = {**classified, "mean": d.mean, "lo": d.lo, "hi": d.hi, "sd_frame": d.sd_frame}
    return {**row, "alignment": dict(answer.quantities)}


def _descriptors(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(k for a in rows for k, v in a.items() if isinstance(v, dict) and "lo" in v))


def _render_csv(rows: Sequence[dict[str, Any]], file: IO[str]) -> None:
    columns = ["id", "source", "row", "sample", "element", "set_aside"]
    columns += [*descriptor_columns(rows), "ood_score", "flags"]
    writer = TableWriter(file, columns)
    writer.writeheader()
    for a in rows:
        writer.writerow({**flat(a), "flags": ", ".join(a.get("flags", ()))})


def _render_table(rows: Sequence[dict[str, Any]], file: IO[str], width: int | None) -> None:
    from ..output.tables import print_table

    names = _descriptors(rows)
    table: list[list[str]] = []
    for id, a in zip(distinct_ids([(a["id"], a["source"]) for a in rows]), rows, strict=True):
        name = ", ".join(part for part in (id, a["sample"], a["element"]) if part)
        if "set_aside" in a:
            table.append([name, *[""] * len(names), "", f"set aside: {a['set_aside']}"])
            continue
        # Descriptors differ between models.
        cells = [f"{a[d]['mean']:.2f} ({a[d]['lo']:.2f}…{a[d]['hi']:.2f})" if d in a else "–" for d in names]
        table.append([name, *cells, f"{a['ood_score']:.2f}", ", ".join(a["flags"])])
    print_table(["spectrum", *names, "score", "flags"], table, file, width)
