"""Estimates for spectra in files, and the training and evaluation commands."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...adapters.formats import Columns, FileSpectrum
from ...agent.estimate import EnergyWidths
from ...agent.types import Estimate, get_logger
from ..config import Config
from ..wiring import load_models
from .align import ChoiceError, Group, align_computed, align_measured, read_all

_log = get_logger()

NO_MODEL = "no model"


def infer_files(
    files: Sequence[Path], config: Config, *, theory: bool, columns: Columns | None = None
) -> list[dict[str, Any]]:
    """One answer per spectrum, in the files' order; ``columns`` as ``read_spectra`` takes them.

    An answer holds ``id``, ``source``, ``row``, and either ``set_aside`` with the reason, or ``ood_score``,
    ``flags``, the alignment's quantities and per descriptor ``mean``, ``lo``, ``hi`` and, where it is classified,
    ``value`` and ``p``. Descriptors that mean nothing for a mixture of sites are left out of measured spectra's
    answers unless ``config.serving.single_site``.

    Raises
    ------
    SpectrumFileError
        A file cannot be read.
    ChoiceError
        The energies of a spectrum fit several models, or those of all fit none, and none was named.
    """
    models = load_models(config)
    everything = theory or config.serving.single_site  # a computed spectrum is of one site, a measured one of many
    spectra = read_all(files, columns)
    groups, aside = (align_computed if theory else align_measured)(spectra, models, config)
    answers = [_aside(s, aside.get(i, "")) for i, s in enumerate(spectra)]
    models_used: Counter[str] = Counter()
    for group in groups:
        models_used[group.model.name] += len(group.rows)
        for i, answer in zip(group.rows, _answers([spectra[i] for i in group.rows], group, theory), strict=True):
            answers[i] = {k: v for k, v in answer.items() if everything or k not in group.model.single_site}
    for name, number in models_used.items():
        _log.info("model", name=name, spectra=number)
    unserved = [a["set_aside"] for a in answers if a.get("set_aside", "").startswith(NO_MODEL)]
    if answers and len(unserved) == len(answers):
        raise ChoiceError(f"{unserved[0]}; --model or --element says which")
    return answers


def render(answers: Sequence[dict[str, Any]], form: str) -> None:
    """Print the answers as a table, JSON or CSV on stdout."""
    if form == "json":
        json.dump(_plain(answers), sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    elif form == "csv":
        _render_csv(answers)
    else:
        _render_table(answers)


def _plain(value: Any) -> Any:
    """NaN as null: JSON has no other word for it."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _aside(spectrum: FileSpectrum, reason: str) -> dict[str, Any]:
    return {"id": spectrum.id, "source": spectrum.source, "row": spectrum.row, "set_aside": reason}


def _answers(spectra: Sequence[FileSpectrum], group: Group, theory: bool) -> list[dict[str, Any]]:
    model, aligned = group.model, group.aligned
    good = [k for k, refusal in enumerate(aligned.refused) if refusal is None]
    sd = aligned.quantities["energy_sd_ev"][good]
    beside = None if theory else EnergyWidths(every=1)(good, model, aligned.mu[good], sd)
    estimates = dict(zip(good, model.estimate(aligned.mu[good], beside), strict=True))
    answers: list[dict[str, Any]] = []
    for k, s in enumerate(spectra):
        refusal = aligned.refused[k]
        if refusal is not None:
            answers.append(_aside(s, f"{refusal[0]}: {refusal[1]}"))
            continue
        head = {"id": s.id, "source": s.source, "row": s.row}
        quantities = {name: float(v[k]) for name, v in aligned.quantities.items()}
        answers.append({**head, **_answer(estimates[k], aligned.flags[k]), "alignment": quantities})
    return answers


def _answer(estimate: Estimate, flags: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"ood_score": estimate.ood_score, "flags": [*estimate.flags, *flags]}
    for name, d in estimate.descriptors.items():
        classified = {} if d.value is None else {"value": d.value, "p": d.p}
        found[name] = {**classified, "mean": d.mean, "lo": d.lo, "hi": d.hi}
    return found


def _descriptors(answers: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(k for a in answers for k, v in a.items() if isinstance(v, dict) and "lo" in v))


def _render_csv(answers: Sequence[dict[str, Any]]) -> None:
    names = _descriptors(answers)
    columns = ["id", "source", "row", "set_aside"]
    columns += [c for d in names for c in (d, f"{d}_p", f"{d}_mean", f"{d}_lo", f"{d}_hi")] + ["ood_score", "flags"]
    writer = csv.DictWriter(sys.stdout, columns, restval="", extrasaction="ignore")
    writer.writeheader()
    for a in answers:
        row = {**a, "flags": ", ".join(a.get("flags", ()))}
        for d in names:
            e = row.pop(d, {})
            row |= {d: e.get("value", ""), **{f"{d}_{k}": e.get(k, "") for k in ("p", "mean", "lo", "hi")}}
        writer.writerow(row)


def _render_table(answers: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    names = _descriptors(answers)
    table = Table()
    for column in ("spectrum", *names, "score", "flags"):
        table.add_column(column, justify="left" if column in ("spectrum", "flags") else "right")
    for a in answers:
        if "set_aside" in a:
            table.add_row(str(a["id"]), *[""] * len(names), "", f"set aside: {a['set_aside']}")
            continue
        # Models differ in what they tell.
        cells = [f"{a[d]['mean']:.2f} ({a[d]['lo']:.2f}…{a[d]['hi']:.2f})" if d in a else "–" for d in names]
        table.add_row(str(a["id"]), *cells, f"{a['ood_score']:.2f}", ", ".join(a["flags"]))
    Console(width=None if sys.stdout.isatty() else 180).print(table)
