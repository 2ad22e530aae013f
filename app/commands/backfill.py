"""``xas-agent backfill``: the descriptors of an archive."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .options import ColumnOption, ConfigOption, EdgeOption, ElementOption, ModelOption, StrictOption
from .shared import (
    FAILED,
    INTERRUPTED,
    SET_ASIDE,
    USAGE,
    columns_of,
    exit_on_error,
    fail,
    refuse_unused,
    settings_of,
)

if TYPE_CHECKING:
    from ..jobs.archive import ArchiveFolder, Engine, Plan, Summary

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
        Path, typer.Option("--out", help="Folder for the Parquet tables: new, or that of the same command, which goes on.")
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
    from ..jobs.archive import ArchiveFolder, Sources, WorkFailed, backfill, identity_of, plan, require_pyarrow
    from ..output.progress import progress_bars
    from ..session import end_like_ctrl_c

    if engine == "local":
        refuse_unused("without --engine dask", scheduler=scheduler)
    if scheduler is not None:
        refuse_unused("with --scheduler, whose workers are started apart", workers=workers)
    with exit_on_error():
        settings = settings_of(config, model, element, edge, single_site=everything)
        require_pyarrow()
        columns = columns_of(column)
        found = Sources(sources, part_rows, settings.tiled)
        identity = identity_of(settings, part_rows, columns, theory=theory)
        end_like_ctrl_c()
        folder = ArchiveFolder(out, identity, write=not dry_run)
        try:
            planned = plan(found, folder.state_of, part_rows)
            if dry_run:
                _show_plan(planned, folder)
                return
            if planned.changed:
                _say_changed(planned.changed)
            if not planned.parts:
                summary = backfill_nothing(folder)
            else:
                used = _engine(engine, scheduler, workers or 1)
                try:
                    with progress_bars() as progress:
                        summary = backfill(
                            found, folder, planned, settings, used, identity, part_rows,
                            columns=columns, theory=theory, progress=progress,
                        )  # fmt: skip
                finally:
                    used.close()
        except (WorkFailed, OSError) as error:
            if isinstance(error, ConnectionError):
                raise
            fail(f"{error}; the parts done are kept, and the same command goes on", FAILED)
        finally:
            folder.close()
    _conclude(summary, folder.folder, strict)
