"""``xas-agent replay``: a recorded experiment, repeated with simulated devices."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    ConfigOption,
    CurveClientsOption,
    CurveKeyOption,
    CurveServerKeyOption,
    DashboardOption,
    EdgeOption,
    ElementOption,
    HealthOption,
    HealthRemoteOption,
    ModelOption,
    NoDashboardOption,
    OutOption,
    SeedOption,
    StrictOption,
)
from .process import begin_quickly, set_up_torch
from .shared import USAGE, Curve, conclude, dashboard_of, exit_on_error, fail, refuse_unused, settings_of


def replay(
    recording: Annotated[
        Path,
        typer.Argument(help="Folder with spectra.npz and series.csv, or a file of documents, .jsonl or .msgpack."),
    ],
    speed: Annotated[
        str, typer.Option(help="Speed relative to the recording, e.g. 10 or 10x; max does not wait.")
    ] = "max",
    config: ConfigOption = None,
    out: OutOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    noise: Annotated[
        float,
        typer.Option(min=0, help="σ of Gaussian noise added to the normalised spectra of a folder, in edge steps."),
    ] = 0.0,
    seed: SeedOption = 0,
    curve_key: CurveKeyOption = None,
    curve_server_key: CurveServerKeyOption = None,
    curve_clients: CurveClientsOption = None,
    health: HealthOption = None,
    health_remote: HealthRemoteOption = False,
    dashboard: DashboardOption = None,
    no_dashboard: NoDashboardOption = False,
    strict: StrictOption = False,
) -> None:
    """Repeat a recorded experiment with simulated devices, and watch it."""
    begin_quickly()
    from ...adapters.files import FileSource
    from ...sim_beamline.replay import Replay
    from ..embedded import InProcessControl
    from ..health import Health
    from ..output.folder import OutputFolder
    from ..output.truth import Truth
    from ..session import Session
    from ..signals import end_like_ctrl_c

    with exit_on_error():
        if not recording.is_dir():
            refuse_unused("with documents, whose data are not changed", noise=noise or None)
        curve = Curve(curve_key, curve_server_key, curve_clients)
        settings = settings_of(config, model, element, edge, curve=curve, health=health, health_remote=health_remote)
        truth = Truth()
        replayed = Replay(
            recording if recording.is_dir() or not recording.exists() else FileSource(recording),
            _speed(speed),
            truth_sinks=[truth],
            element=element,
            edge=edge,
            noise=noise,
            seed=seed,
        )
        served = Health(settings.health) if settings.health else None
        output = OutputFolder(out) if out else None
        set_up_torch(settings.model.threads, settings.serving.precision, settings.model.engine)
        end_like_ctrl_c()
        control, name = InProcessControl(replayed.obey), shlex.quote(str(recording))
        with dashboard_of(output, dashboard, no_dashboard):
            session = Session(
                settings.simulated(), output, control, len(replayed), truth=truth, name=name, health=served
            )
            with session:
                replayed.subscribe(session.agent)
                session.follow(replayed.run)
    conclude(session, strict)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        return float(text.removesuffix("×").removesuffix("x"))
    except ValueError:
        fail(f"--speed {text}: expected a number or max", USAGE)
