"""``xas-agent run``: watch an experiment and act on it."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    ColumnOption,
    ConfigOption,
    EdgeOption,
    ElementOption,
    FramesOption,
    ModelOption,
    OutOption,
    PresetOption,
    SourceOption,
    StrictOption,
)
from .process import set_up_torch
from .shared import USAGE, columns_of, conclude, fail, refuse_idle, settings_of, told

PLANNED = 80  # frames that the embedded beamline spreads its charge over


def run(
    config: ConfigOption = None,
    frames: FramesOption = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of everything random in the embedded beamline. [default: 0]")
    ] = None,
    out: OutOption = None,
    source: SourceOption = None,
    publish: Annotated[str | None, typer.Option(help="zmq://HOST:PORT, a bluesky proxy's in-port.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Watch the files of this folder, and what comes.")] = None,
    column: ColumnOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    connect_timeout: Annotated[float | None, typer.Option(min=0, help="s; 0 waits for ever. [default: 10]")] = None,
    preset: PresetOption = None,
    strict: StrictOption = False,
) -> None:
    """Watch an experiment and act on it.

    Without --source (and none in the config) or --folder the embedded beamline charges a LixCoO2 cathode in a
    process of its own, and the agent stops it at x = 0.50.
    """
    from ..embedded import embedded
    from ..session import Session, terminate_like_ctrl_c

    with told():
        if folder and source:
            fail("--folder and --source: expected one of them", USAGE)
        config = config or (None if source or folder else "default")
        settings = settings_of(config, model, element, edge, source, publish, connect_timeout, preset=preset)
        listens = settings.source is not None or settings.tiled is not None
        if folder and listens:
            fail(f"--folder and the source of {config}: expected one of them", USAGE)
        if folder and out and out.resolve() == folder.resolve():
            fail("--out: found the watched folder, expected another: its tables would be read", USAGE)
        if not listens:
            refuse_idle("without a source of a beamline's documents", preset=settings.preset)
        if not listens and settings.publish is None:
            refuse_idle("where nothing is connected to", connect_timeout=connect_timeout)
        if folder or listens:
            refuse_idle("without the embedded beamline", seed=seed)
        if not folder:
            refuse_idle("without --folder", column=column or None)
        terminate_like_ctrl_c()
        if folder is not None:
            from ...adapters.files import FolderSource

            set_up_torch(settings.model.threads)
            files = FolderSource(folder, columns=columns_of(column), element=element, edge=edge)
            with closing(files), Session(settings, out, limit=frames) as session:
                session.watch(files)
        elif settings.source is None and settings.tiled is None:
            set_up_torch(settings.model.threads)
            session = embedded(settings, seed or 0, max(PLANNED, frames or 0), out or Path("out"), limit=frames)
        else:
            from ..session import source_of

            documents = source_of(settings)
            documents.connect()  # first, so that nothing published while the models load is lost
            set_up_torch(settings.model.threads)
            with closing(documents), Session(settings, out, limit=frames) as session:
                session.watch(documents)
    conclude(session, strict)
