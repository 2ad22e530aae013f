"""``xas-agent sim``: the simulated beamline alone."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import SeedOption
from .shared import exit_on_error


def sim(
    publish: Annotated[
        str, typer.Option(help="Address for documents; port 0 selects a free port.")
    ] = "zmq://127.0.0.1:5577",
    connect: Annotated[
        bool, typer.Option("--connect", help="Connect to --publish, a proxy's in-port, instead of binding it.")
    ] = False,
    control: Annotated[
        str, typer.Option(help="Address for control requests; port 0 selects a free port.")
    ] = "zmq://127.0.0.1:5579",
    seed: SeedOption = 0,
    frames: Annotated[int, typer.Option(min=1, help="Number of planned spectra.")] = 80,
    mode: Annotated[str, typer.Option(help="fly: one Event per spectrum; step: one Event per energy.")] = "fly",
    period: Annotated[float, typer.Option(min=0, help="Time from one spectrum to the next, s.")] = 0.4,
    truth: Annotated[
        Path | None,
        typer.Option(help="File for the true values, which are not published, .jsonl. [default: not written]"),
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Longest wait for a subscriber, s; 0 waits without limit.")
    ] = 60.0,
) -> None:
    """Run only the simulated beamline, which publishes documents of a LixCoO2 cathode during its charge.

    The command prints one line of JSON with its addresses and waits for a subscriber before the first document.

    Example: xas-agent sim --frames 20 --truth truth.jsonl
    """
    from ...adapters.errors import EndpointUnreachable
    from ...adapters.files import FileSink
    from ...adapters.zmq import ControlServer, ZMQEndpoint, ZMQSink
    from ...agent.types import validate_settings
    from ...sim_beamline.beamline import BeamlineSettings, SimBeamline
    from ..session import end_like_ctrl_c

    with exit_on_error():
        chosen: dict[str, Any] = {"seed": seed, "frames": frames, "mode": mode, "frame_period_s": period}
        settings = validate_settings(chosen, BeamlineSettings, "sim")
        endpoint = validate_settings({"address": publish, "bind": not connect}, ZMQEndpoint, "--publish")
        sink = ZMQSink(endpoint)
        truth_sink = FileSink(truth) if truth else None
        beamline = SimBeamline(settings, [sink], [truth_sink] if truth_sink else [])
        end_like_ctrl_c()
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
            if truth_sink is not None:
                truth_sink.close()


def _zmq(address: str) -> str:
    return address.replace("tcp://", "zmq://")
