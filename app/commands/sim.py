"""``xas-agent sim``: the simulated beamline alone."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    SeedOption,
)
from .shared import told


def sim(
    publish: Annotated[str, typer.Option(help="Where to publish; port 0 takes a free one.")] = "zmq://127.0.0.1:5577",
    connect: Annotated[
        bool, typer.Option("--connect", help="Connect (to a proxy's in-port) instead of binding.")
    ] = False,
    control: Annotated[str, typer.Option(help="Where to take orders.")] = "zmq://127.0.0.1:5579",
    seed: SeedOption = 0,
    frames: Annotated[int, typer.Option(min=1, help="Spectra planned.")] = 80,
    mode: Annotated[str, typer.Option(help="fly (an Event per spectrum) or step (an Event per energy).")] = "fly",
    period: Annotated[float, typer.Option(min=0, help="Wall time per frame, s.")] = 0.4,
    truth: Annotated[Path | None, typer.Option(help="File for what the agent must not know (.jsonl).")] = None,
    wait: Annotated[float, typer.Option(min=0, help="s to wait for a subscriber; 0 waits for ever.")] = 60.0,
) -> None:
    """Run the simulated beamline alone: a LixCoO2 cathode charged in the beam, publishing documents.

    Prints one line of JSON with its endpoints, then waits for a subscriber before the first document.
    """

    from ...adapters.errors import EndpointUnreachable
    from ...adapters.files import FileSink
    from ...adapters.zmq import ControlServer, ZMQEndpoint, ZMQSink
    from ...agent.types import validate_settings
    from ...sim_beamline.beamline import BeamlineSettings, SimBeamline
    from ..session import terminate_like_ctrl_c

    with told():
        chosen: dict[str, Any] = {"seed": seed, "frames": frames, "mode": mode, "frame_period_s": period}
        settings = validate_settings(chosen, BeamlineSettings, "sim")
        endpoint = validate_settings({"address": publish, "bind": not connect}, ZMQEndpoint, "--publish")
        sink = ZMQSink(endpoint)
        known = FileSink(truth) if truth else None
        beamline = SimBeamline(settings, [sink], [known] if known else [])
        terminate_like_ctrl_c()
        server = ControlServer(control, beamline.obey)
        try:
            sink.connect()
            typer.echo(json.dumps({"documents": _zmq(sink.address), "control": _zmq(server.address)}))
            sys.stdout.flush()
            if not sink.wait_for_subscriber(wait or None):
                raise EndpointUnreachable(sink.address, f"nobody subscribed within {wait:g} s")
            beamline.run()
        except KeyboardInterrupt:
            pass
        finally:
            server.close()
            sink.close()
            if known is not None:
                known.close()


def _zmq(address: str) -> str:
    return address.replace("tcp://", "zmq://")
