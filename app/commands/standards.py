"""``xas-agent standards``: models judged on measured spectra of known compounds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import ColumnOption, ConfigOption
from .process import set_up_torch
from .shared import SET_ASIDE, USAGE, columns_of, exit_on_error, fail, refuse_unused, settings_of

if TYPE_CHECKING:
    from ...agent.types import Estimator
    from ..jobs.offset_scan import OffsetScan
    from ..jobs.standards import Judged


def standards(
    table: Annotated[
        Path,
        typer.Argument(
            help="CSV of the standards with columns file, element, compound and OS; optional are CN, class, source, "
            "scan and shift_ev."
        ),
    ],
    spectra: Annotated[
        Path | None, typer.Option("--spectra", help="Folder of the spectra. [default: folder of the table]")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Model of an element, by name or folder. Repeatable. [default: shipped ones]"),
    ] = None,
    shifts: Annotated[
        bool,
        typer.Option("--shifts", help="Add shift_ev of the table, eV, to the energies of spectra without a foil."),
    ] = False,
    scan_offset: Annotated[
        float | None,
        typer.Option(
            "--scan-offset",
            min=0.5,
            max=20,
            metavar="EV",
            help="Repeat this at offsets up to EV from those of the cards, and find the best. [default: no scan]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the tables (CSV, JSON) and figures. [default: not written]"),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the answers for a model's element into its card and README.")
    ] = False,
    column: ColumnOption = None,
    config: ConfigOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 4 if standards are set aside.")] = False,
) -> None:
    """Judge models on measured spectra of known compounds.

    Each spectrum is served as xas-agent infer serves it. A hit is a mean oxidation state within 0.35 e of the known
    one. Metals, sulphides and phosphides must be flagged.
    """
    from ..jobs.known_compounds import read_known
    from ..jobs.offset_scan import scan_offsets
    from ..jobs.standards import judge, models_for, read_standards, write_into_cards
    from ..output.opening import make_folder
    from ..output.progress import progress_beside_messages
    from ..signals import end_like_ctrl_c

    with exit_on_error():
        settings = settings_of(config)
        set_up_torch(settings.model.threads, engine=settings.model.engine)
        end_like_ctrl_c()
        known = read_known(table, spectra)
        if all(one.shift_ev is None for one in known):
            refuse_unused(f"without a column shift_ev in {table}", shifts=shifts or None)
        if write and (shifts or settings.alignment.energy_shift_ev):
            fail("--write: a card states answers for energies as recorded; leave out --shifts and any shift", USAGE)
        named = model or settings.model.use
        models = models_for(known, named, settings)
        if out is not None:
            make_folder(out)  # to fail before the work, not after it
        read = read_standards(known, columns_of(column))
        with progress_beside_messages() as show:
            judged = judge(read, models, settings, shifts=shifts, done=lambda n: show("standards", n, len(read)))
            scan = None
            if scan_offset is not None:
                scan = scan_offsets(
                    read, models, settings, scan_offset, shifts=shifts, done=lambda n, all: show("offsets", n, all)
                )
        _print_judged(judged)
        if scan is not None:
            _print_scan(scan)
        if out is not None:
            typer.echo("\n" + "\n".join(map(str, _written(out, judged, models, scan))))
        if write:
            typer.echo("\n" + "\n".join(map(str, write_into_cards(judged, models, named))))
    if strict and any(j.set_aside for j in judged):
        raise typer.Exit(SET_ASIDE)


def _written(
    out: Path, judged: Sequence["Judged"], models: Sequence["Estimator"], scan: "OffsetScan | None"
) -> list[Path]:
    """Write tables and figures into ``out``; return the files."""
    from ..jobs.offset_scan import write_scan
    from ..jobs.standards import write_standards

    written = [*write_standards(out, judged, models), _draw_judged(out / "standards.png", judged)]
    if scan is not None:
        written += [write_scan(out, scan), _draw_scan(out / "offsets.png", scan)]
    return written


def _print_judged(judged: Sequence["Judged"]) -> None:
    from ..jobs.standards import FAR_E, HIT_E, NARROW_E, WIDE_E, flags_of, misfit_sd_of, shares_of
    from ..output.tables import print_table

    rows: list[list[str]] = []
    for j in judged:
        known = "" if j.known.os is None else f"{j.known.os:g}"
        cells = [""] * 4
        if j.os is not None and j.served is not None and j.served.estimate is not None:
            means = [f"{d.mean:.2f} ({d.lo:.2f}…{d.hi:.2f})" if d else "–" for d in (j.os, j.cn)]
            shift = f"{j.calibrated_by} {j.correction_ev:+.2f}" if j.correction_ev else j.calibrated_by
            cells = [*means, f"{j.served.estimate.ood_score:.2f}", shift]
        flagged = ", flagged" if j.is_flagged and not j.known.must_be_flagged else ""
        rows.append([j.known.name, j.known.element, known, *cells, j.verdict + flagged])
    print_table(["standard", "element", "OS", "OS_mean", "CN_mean", "score", "energies / eV", "verdict"], rows)

    def part(count: int, answered: int) -> str:
        return f"{count} ({count / answered:.0%})" if answered else "–"

    header = ["oxides with a known OS", "answered", "set aside", f"± {NARROW_E} e", f"± {HIT_E} e", f"± {WIDE_E} e"]
    header += ["in the interval", "flagged", f"> {FAR_E:g} e, not flagged"]
    table: list[list[str]] = []
    for s in shares_of(judged):
        counts = (s.within_narrow, s.hits, s.within_wide, s.inside, s.flagged, s.far_without_flag)
        table.append([s.group, str(s.answered), str(s.set_aside), *(part(count, s.answered) for count in counts)])
    typer.echo()
    print_table(header, table)
    typer.echo()
    for kind, (flagged, answered) in flags_of(judged).items():
        typer.echo(f"{kind}s flagged: {flagged} of {answered}")
    if sd := misfit_sd_of(judged):
        typer.echo(f"intervals hold 90 % of the oxides with misfit_sd: {{OS: {sd:.2f}}} in the domain of the cards")
    elif sd == 0:
        typer.echo("intervals hold 90 % of the oxides as they are")
    if aside := sum(bool(j.set_aside) for j in judged):
        typer.echo(f"set aside: {aside} of {len(judged)} standards")


def _print_scan(scan: "OffsetScan") -> None:
    from ..output.tables import print_table

    whole = [k for k, change in enumerate(scan.changes_ev.tolist()) if change == round(change)]
    rows: list[list[str]] = []
    for one, states, fit, card in zip(scan.known, scan.os, scan.fitting_ev(), scan.card_ev, strict=True):
        known = "" if one.os is None else f"{one.os:g}"
        cells = ["–" if state != state else f"{state:.2f}" for state in states[whole]]
        rows.append([one.name, one.element, known, f"{card:.2f}", *cells, "–" if fit != fit else f"{fit:.2f}"])
    changes = [f"{scan.changes_ev[k]:+.0f}" if scan.changes_ev[k] else "0" for k in whole]
    typer.echo("\nOS_mean at FEFF's offset less that of the card, eV, and the offset at which it is the known OS")
    print_table(["standard", "element", "OS", "card / eV", *changes, "fits at / eV"], rows)
    typer.echo("\nThe offset with the least mean absolute error (MAE) of the oxides")
    table = [
        [
            f.group,
            str(f.standards),
            f"{f.card_ev:.2f}",
            f"{f.best_ev:.2f}" + (" (end of the scan)" if f.is_at_end else ""),
            f"{f.card_error:.2f}",
            f"{f.error:.2f}",
            f"{f.bias:+.2f}",
            f"{f.scatter:.2f}" if f.standards > 1 else "–",
            "–" if f.gain != f.gain else f"{f.gain:.2f}",
            f"{f.slope:+.2f}",
            f"{f.hits} of {f.standards}",
        ]
        for f in scan.fits()
    ]
    header = ["oxides", "standards", "card / eV", "best / eV", "MAE at card / e", "at best", "median error", "SD"]
    print_table([*header, "gain", "slope / e/eV", "hits at best"], table)


def _draw_judged(path: Path, judged: Sequence["Judged"]) -> Path:
    from ..jobs.standards import HIT_E
    from ..output.standards_figures import Answered, draw_answers

    answers = [
        Answered(
            j.known.compound,
            j.known.element,
            j.known.os,
            j.os.mean,
            j.os.lo,
            j.os.hi,
            j.is_flagged,
            j.known.is_judged,
        )
        for j in judged
        if j.os is not None
    ]
    draw_answers(path, answers, HIT_E)
    return path


def _draw_scan(path: Path, scan: "OffsetScan") -> Path:
    from ..output.standards_figures import Scanned, draw_offsets

    panels: dict[str, list[Scanned]] = {}
    for one, card_ev, states in zip(scan.known, scan.card_ev, scan.os, strict=True):
        curve = Scanned(one.compound, one.os if one.is_judged else None, card_ev + scan.changes_ev, states)
        panels.setdefault(one.element, []).append(curve)
    draw_offsets(path, panels, {fit.group: (fit.card_ev, fit.best_ev) for fit in scan.fits()})
    return path
