"""``xas-agent replay``: a recorded scan measured again with simulated devices."""

from pathlib import Path
from typing import Annotated

import typer

from .options import ConfigOption, EdgeOption, ElementOption, ModelOption, OutOption, SeedOption, StrictOption
from .process import set_up_torch
from .shared import USAGE, conclude, fail, refuse_idle, settings_of, told


def replay(
    recording: Annotated[Path, typer.Argument(help="Folder with spectra.npz and series.csv, or a documents file.")],
    speed: Annotated[str, typer.Option(help="How many times as fast as recorded, or max.")] = "max",
    config: ConfigOption = None,
    out: OutOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    noise: Annotated[float, typer.Option(min=0, help="σ of noise added to a folder's spectra.")] = 0.0,
    seed: SeedOption = 0,
    strict: StrictOption = False,
) -> None:
    """Measure a recorded scan again with simulated devices, and watch it."""
    from ...adapters.files import FileSource
    from ...sim_beamline.replay import Replay
    from ..embedded import InProcessControl
    from ..output.recorder import Truth
    from ..session import Session, terminate_like_ctrl_c

    with told():
        if not recording.is_dir():
            refuse_idle("with documents, which are replayed as they are", noise=noise or None)
        settings = settings_of(config, model, element, edge)
        truth = Truth()
        again = Replay(
            recording if recording.is_dir() or not recording.exists() else FileSource(recording),
            _speed(speed),
            truth_sinks=[truth],
            element=element,
            edge=edge,
            noise=noise,
            seed=seed,
        )
        set_up_torch(settings.model.threads)
        terminate_like_ctrl_c()
        with Session(settings, out, InProcessControl(again.obey), planned=len(again), truth=truth) as session:
            again.subscribe(session.agent)
            session.follow(again.run)
    conclude(session, strict)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        return float(text.removesuffix("×").removesuffix("x"))
    except ValueError:
        fail(f"--speed {text}: expected a number or max", USAGE)
