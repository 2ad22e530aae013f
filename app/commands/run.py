"""``xas-agent run``: watch an experiment and act on it."""

import shlex
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    ColumnOption,
    ConfigOption,
    ConnectTimeoutOption,
    ControlSecretOption,
    CurveClientsOption,
    CurveKeyOption,
    CurveServerKeyOption,
    EdgeOption,
    ElementOption,
    FramesOption,
    HealthOption,
    HealthRemoteOption,
    ModelOption,
    OutOption,
    PresetOption,
    SourceOption,
    StrictOption,
)
from .process import set_up_torch
from .shared import USAGE, Curve, columns_of, conclude, exit_on_error, fail, refuse_unused, settings_of

if TYPE_CHECKING:
    from ..config import Config

DEFAULT_OUT = "out"
"""Folder in which a session of the embedded beamline gets a folder of its own."""
PLANNED_FRAMES = 80
"""Number of frames over which the embedded beamline spreads its charge."""


def run(
    config: ConfigOption = None,
    frames: FramesOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the embedded beamline. [default: 0]")] = None,
    out: OutOption = None,
    source: SourceOption = None,
    publish: Annotated[
        str | None,
        typer.Option(
            help="Publish the agent's documents to zmq://HOST:PORT, a bluesky proxy's in-port, or write them to "
            "tiled://HOST:PORT/PATH, a Tiled catalogue."
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Read the files of this folder, also those added later.")
    ] = None,
    column: ColumnOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    connect_timeout: ConnectTimeoutOption = None,
    preset: PresetOption = None,
    curve_key: CurveKeyOption = None,
    curve_server_key: CurveServerKeyOption = None,
    curve_clients: CurveClientsOption = None,
    control_secret: ControlSecretOption = None,
    health: HealthOption = None,
    health_remote: HealthRemoteOption = False,
    strict: StrictOption = False,
) -> None:
    """Watch an experiment and act on it.

    The documents come from --source, --folder or the source in the config. Without any of them, an embedded simulated
    beamline charges a LixCoO2 cathode, and the agent stops the charge at x = 0.50; without --out the results are in a
    new folder in out, named after the time.

    Example: xas-agent run --source zmq://localhost:5578 --preset bmm --out out
    """
    from ...adapters.files import FolderSource
    from ..embedded import watch_embedded
    from ..health import Health
    from ..output.folder import OutputFolder, fresh_folder
    from ..session import Session, end_like_ctrl_c, source_of

    with exit_on_error():
        if folder and source:
            fail("--folder and --source: expected one of them", USAGE)
        config = config or (None if source or folder else "default")
        settings = settings_of(
            config, model, element, edge, source, publish, connect_timeout,
            preset=preset,
            curve=Curve(curve_key, curve_server_key, curve_clients),
            control_secret=control_secret,
            health=health,
            health_remote=health_remote,
        )  # fmt: skip
        listens = settings.source is not None or settings.tiled is not None
        if folder:
            _check_folder(folder, out, config if listens else None)
        _refuse_unused(
            settings, folder=folder, listens=listens, column=column, connect_timeout=connect_timeout, seed=seed
        )
        end_like_ctrl_c()
        if out is None and not folder and not listens:
            out = fresh_folder(Path(DEFAULT_OUT))
        served = Health(settings.health) if settings.health else None
        output = OutputFolder(out) if out else None
        documents = None
        if folder is not None:
            documents = FolderSource(folder, columns=columns_of(column), element=element, edge=edge)
        elif listens:
            documents = source_of(settings)
            documents.connect()  # before the models load, so that no document is lost meanwhile
        set_up_torch(settings.model.threads)
        if documents is None:
            planned = max(PLANNED_FRAMES, frames or 0)
            assert output is not None
            session = watch_embedded(settings, seed or 0, planned, output, limit=frames, health=served)
        else:
            name = shlex.quote(str(folder)) if folder else None
            session = Session(settings, output, name=name, limit=frames, health=served)
            with closing(documents), session:
                session.watch(documents)
    conclude(session, strict)


def _refuse_unused(
    settings: "Config",
    *,
    folder: Path | None,
    listens: bool,
    column: list[str] | None,
    connect_timeout: float | None,
    seed: int | None,
) -> None:
    """Refuse options that have no effect on this source."""
    if not folder:
        refuse_unused("without --folder", column=column or None)
    if not listens:
        refuse_unused("without a source of a beamline's documents", preset=settings.preset)
    if not listens and not (settings.publish and settings.publish.address):
        refuse_unused("without an endpoint", connect_timeout=connect_timeout)
    if folder or listens:
        refuse_unused("without the embedded beamline", seed=seed)


def _check_folder(folder: Path, out: Path | None, config_with_source: str | None) -> None:
    """Refuse a second source, and an output folder whose tables the agent would read."""
    if config_with_source is not None:
        fail(f"--folder and the source of {config_with_source}: expected one of them", USAGE)
    if out and out.resolve() == folder.resolve():
        fail("--out: found the watched folder, expected another, because the agent would read its own tables", USAGE)
