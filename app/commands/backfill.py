"""``xas-agent backfill``: the descriptors of an archive."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ...wording import counted
from .options import ColumnOption, ConfigOption, EdgeOption, ElementOption, ModelOption, StrictOption
from .shared import (
    FAILED,
    INTERRUPTED,
    SET_ASIDE,
    columns_of,
    exit_on_error,
    fail,
    refuse_unused,
    say_refused,
    settings_of,
)

if TYPE_CHECKING:
    from ..jobs.archive import ArchiveFolder, Engine, Plan

_PART_ROWS = 4000


def backfill(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders (with those within) or patterns of spectra, Parquet tables, files of documents, or "
            "tiled://HOST:PORT/PATH."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder for the Parquet tables: new, or that of the same command, which goes on."),
    ],
    engine: Annotated[
        Literal["local", "dask"], typer.Option("--engine", help="Processes of this machine, or a Dask cluster.")
    ] = "local",
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of Dask's scheduler, as tcp://HOST:8786. [default: a cluster on this machine]"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Number of processes on this machine. [default: 1]")
    ] = None,
    part_rows: Annotated[
        int, typer.Option("--part-rows", min=1, help="Spectra of a part, which one worker holds in memory.")
    ] = _PART_ROWS,
    column: ColumnOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    theory: Annotated[
        bool,
        typer.Option("--theory", help="The spectra are computed, or aligned by xas-agent align: do not align them."),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Include descriptors without a meaning for a mixture of sites (PSGO, CN2).")
    ] = False,
    config: ConfigOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what there is to do.")] = False,
    strict: StrictOption = False,
) -> None:
    """Estimate the descriptors of an archive, some million spectra, into Parquet tables."""
    from ...adapters.errors import EndpointUnreachable
    from ..jobs.archive import ArchiveFolder, Backfill, WorkFailed, require_pyarrow
    from ..output.progress import progress_bars
    from ..signals import end_like_ctrl_c

    if engine == "local":
        refuse_unused("without --engine dask", scheduler=scheduler)
    if scheduler is not None:
        refuse_unused("with --scheduler, whose workers are started apart", workers=workers)
    interrupted = False
    with exit_on_error():
        settings = settings_of(config, model, element, edge, single_site=everything)
        require_pyarrow()
        work = Backfill(sources, settings, part_rows, columns_of(column), theory)
        end_like_ctrl_c()
        plan = work.plan(ArchiveFolder(out, work.identity(), write=False))  # nothing is created for a wrong source
        if dry_run:
            _show_plan(plan)
            return
        if plan.changed:
            said = "changed since they were read; their earlier rows are kept: name another --out for new ones"
            typer.echo(f"{plan.changed} files or parts of files {said}", err=True)
        with closing(ArchiveFolder(out, work.identity())) as folder:
            try:
                if plan.parts:
                    with closing(_engine(engine, scheduler, workers or 1)) as used, progress_bars() as progress:
                        interrupted = work.fill(folder, used, plan.parts, progress)
            except (WorkFailed, OSError) as error:
                if isinstance(error, EndpointUnreachable):
                    raise
                fail(f"{error}; the parts done are kept, and the same command goes on", FAILED)
    _conclude(folder, interrupted, strict)


def _engine(name: str, scheduler: str | None, workers: int) -> "Engine":
    from ..jobs.archive import DaskEngine, LocalEngine

    return LocalEngine(workers) if name == "local" else DaskEngine(scheduler, workers)


def _show_plan(plan: "Plan") -> None:
    _show("tables", f"{plan.tables}, with {counted(plan.spectra, 'spectrum', 'spectra')}")
    _show("files", f"{plan.files}, each with one spectrum or several")
    _show("runs", str(plan.runs))
    _show("done before", counted(plan.done, "piece") + (f", {plan.changed} changed since" if plan.changed else ""))
    _show("parts to do", str(plan.parts))


def _conclude(folder: "ArchiveFolder", interrupted: bool, strict: bool) -> None:
    """Print what the folder holds; exit with the code of what went wrong."""
    from ...agent.types import Reason

    aside = folder.set_aside
    _show("spectra", str(folder.rows))
    _show("set aside", ", ".join(f"{reason} {count}" for reason, count in aside.most_common()) or "0")
    _show("written", f"{folder.folder}/")
    if refused := aside[Reason.FILE_NOT_READABLE]:
        lines = [f"{source}: {reason}" for source, reason in folder.refused]
        if refused > len(lines):
            where = f"the tables have a row for each, with the reason {str(Reason.FILE_NOT_READABLE)!r}"
            lines.append(f"and {refused - len(lines)} more: {where}")
        say_refused(refused, lines)
    if interrupted:
        fail("interrupted; the parts done are kept, and the same command goes on", INTERRUPTED)
    if strict and (aside or not folder.rows):
        raise typer.Exit(SET_ASIDE)


def _show(key: str, text: str) -> None:
    typer.echo(f"{key:12} {text}")
