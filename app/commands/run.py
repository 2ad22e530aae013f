"""``xas-agent run``: watch an experiment and act on it."""

import shlex
from contextlib import ExitStack, closing
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
    DashboardOption,
    EdgeOption,
    ElementOption,
    FramesOption,
    HealthOption,
    HealthRemoteOption,
    ModelOption,
    NoDashboardOption,
    OutOption,
    PresetOption,
    SourceOption,
    StrictOption,
)
from .process import begin_quickly, set_up_torch
from .resume import earlier_options, keep_options, output_of
from .shared import USAGE, Curve, columns_of, conclude, dashboard_of, exit_on_error, fail, refuse_unused, settings_of
from .sim import DEFAULT_PERIOD_S

if TYPE_CHECKING:
    from ...sim_beamline.settings import BeamlineSettings
    from ..config import Config

DEFAULT_OUT = "out"
"""Folder in which a session of the embedded beamline gets a folder of its own."""
RECORDINGS = (".jsonl", ".json", ".msgpack")
"""Suffixes of files of documents."""
_OF_THIS_TIME = ("strict", "dashboard", "no_dashboard")
"""Options that --resume takes beside those of the earlier session."""
PLANNED_FRAMES = 80
"""Number of frames over which the embedded beamline spreads its charge."""


def run(
    context: typer.Context,
    config: ConfigOption = None,
    frames: FramesOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the embedded beamline. [default: 0]")] = None,
    out: OutOption = None,
    source: SourceOption = None,
    publish: Annotated[
        str | None,
        typer.Option(
            help="Publish the agent's documents to zmq://HOST:PORT, a bluesky proxy's in-port, "
            "nats://HOST:PORT/SUBJECT or kafka://HOST:PORT/TOPIC, or write them to tiled://HOST:PORT/PATH, a Tiled "
            "catalogue."
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
    dashboard: DashboardOption = None,
    no_dashboard: NoDashboardOption = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on in the --out folder of an earlier session: alone with its options, or with the same source "
            "and another config or model."
        ),
    ] = None,
    strict: StrictOption = False,
) -> None:
    """Watch an experiment and act on it.

    The documents come from --source, --folder or the source in the config. Without any of them, an embedded simulated
    beamline charges a LixCoO2 cathode, and the agent stops the charge at x = 0.50, unless the config has a simulation
    of its own (--config stories/charge); without --out the results are in a new folder in out, named after the time.
    """
    from ..signals import StartUp

    start_up = StartUp()  # before the imports, which take seconds
    begin_quickly()
    from ...adapters.files import FileSource, FolderSource
    from ...agent.types import SharedSource
    from ..embedded import watch_embedded
    from ..health import Health
    from ..output.opening import fresh_folder
    from ..session import Session, source_of

    with exit_on_error(), ExitStack() as resources:
        if resume and not {name for name, value in context.params.items() if value} - {"resume", *_OF_THIS_TIME}:
            given = {name: context.params[name] for name in _OF_THIS_TIME if context.params[name]}
            context.params |= earlier_options(resume) | given
            run(context, **context.params)
            return
        if folder and source:
            fail("--folder and --source: expected one of them", USAGE)
        if out and resume:
            fail("--out and --resume: expected one of them", USAGE)
        recording = Path(source) if source is not None and Path(source).suffix in RECORDINGS else None
        config = config or (None if source or folder else "default")
        settings = settings_of(
            config, model, element, edge, source if recording is None else None, publish, connect_timeout,
            preset=preset,
            curve=Curve(curve_key, curve_server_key, curve_clients),
            control_secret=control_secret,
            health=health,
            health_remote=health_remote,
        )  # fmt: skip
        if recording is not None:
            settings = settings.recorded()
        files, out = folder or recording, out or resume
        _refuse_two_sources(settings, config, folder, recording, out)
        _refuse_unused(
            settings,
            folder=folder, recording=recording,
            column=column, connect_timeout=connect_timeout, seed=seed, resume=resume,
        )  # fmt: skip
        if out is None and not files and not settings.listens:
            out = fresh_folder(Path(DEFAULT_OUT))
        served = Health(settings.health) if settings.health else None
        output = output_of(out, settings, files, resume is not None)
        if output is not None and output.journal is not None:
            keep_options(output.journal, context.params, recording, config)
        elif settings.shared is not None:
            needs = "needs --out and journal.durability, by which documents are acknowledged"
            fail(f"{settings.shared.address}: {needs}", USAGE)
        documents = None
        if folder is not None:
            documents = FolderSource(folder, columns=columns_of(column), element=element, edge=edge)
        elif recording is not None:
            documents = FileSource(recording)
        elif settings.listens:
            documents = source_of(settings)
            resources.callback(documents.close)
            if isinstance(documents, SharedSource):
                resources.callback(documents.release)
            documents.connect()  # before the models load, so that no document is lost
        with start_up.held():
            set_up_torch(settings.model.threads, settings.serving.precision, settings.model.engine)
        with dashboard_of(output, dashboard, no_dashboard):
            if documents is None:
                assert output is not None
                simulation = _simulation(settings, seed, frames)
                session = watch_embedded(settings, simulation, output, limit=frames, health=served)
            else:
                name = shlex.quote(str(files)) if files else None
                session = Session(settings, output, name=name, limit=frames, health=served)
                with closing(documents), session:
                    start_up.over()
                    session.watch(documents)
    conclude(session, strict)


def _simulation(settings: "Config", seed: int | None, frames: int | None) -> "BeamlineSettings":
    """Return what the embedded beamline simulates: the config's experiment, else the charge of a cathode."""
    from ...sim_beamline.settings import BeamlineSettings

    simulation = settings.simulation
    if simulation is None:
        planned = max(PLANNED_FRAMES, frames or 0)
        simulation = BeamlineSettings(frames=planned, frame_period_s=DEFAULT_PERIOD_S)
    return simulation if seed is None else simulation.model_copy(update={"seed": seed})


def _refuse_two_sources(
    settings: "Config", config: str | None, folder: Path | None, recording: Path | None, out: Path | None
) -> None:
    """Refuse a second source of documents, and results among the files that are read."""
    files = folder or recording
    if files and settings.listens:
        fail(f"{'--folder' if folder else '--source'} and the source of {config}: expected one of them", USAGE)
    if files and out and out.resolve() == files.resolve():
        fail(f"--out: found {files}, which the agent reads; expected another folder", USAGE)
    if (files or settings.listens) and settings.simulation is not None:
        fail(f"simulation in {config}: no effect beside a source; leave one of them out", USAGE)


def _refuse_unused(
    settings: "Config",
    *,
    folder: Path | None,
    recording: Path | None,
    column: list[str] | None,
    connect_timeout: float | None,
    seed: int | None,
    resume: Path | None,
) -> None:
    """Refuse options that have no effect on this source."""
    if not folder:
        refuse_unused("without --folder", column=column or None)
    listens = settings.listens
    if not (listens or recording):
        refuse_unused("without a source of a beamline's documents", preset=settings.preset)
    if not listens and not (settings.publish and settings.publish.address):
        refuse_unused("without an endpoint", connect_timeout=connect_timeout)
    if folder or recording or listens:
        refuse_unused("without the embedded beamline", seed=seed)
    elif resume:
        fail("--resume: found options without a source; give all options of the session, or --resume alone", USAGE)
