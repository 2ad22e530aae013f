"""``xas-agent sim``: the simulated beamline alone."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from .options import ControlSecretOption, CurveClientsOption, CurveKeyOption, CurveServerKeyOption, SeedOption
from .shared import Curve, exit_on_error


def sim(
    publish: Annotated[
        str, typer.Option(help="Address for documents; port 0 selects a free port.")
    ] = "zmq://127.0.0.1:5577",
    connect: Annotated[
        bool, typer.Option("--connect", help="Connect to --publish, a proxy's in-port, instead of binding it.")
    ] = False,
    control: Annotated[
        str | None,
        typer.Option(
            help="Address for control requests, zmq://HOST:PORT with CURVE keys or a shared secret, or ipc:///PATH. "
            "[default: a new Unix socket]"
        ),
    ] = None,
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
    curve_key: CurveKeyOption = None,
    curve_server_key: CurveServerKeyOption = None,
    curve_clients: CurveClientsOption = None,
    control_secret: ControlSecretOption = None,
) -> None:
    """Run only the simulated beamline, which publishes documents of a LixCoO2 cathode during its charge.

    The command prints one line of JSON with its addresses and waits for a subscriber before the first document.

    Example: xas-agent sim --frames 20 --truth truth.jsonl
    """
    from ...adapters.errors import EndpointUnreachable
    from ...adapters.files import FileSink
    from ...adapters.zmq import ControlEndpoint, ControlServer, ZMQEndpoint, ZMQSink
    from ...agent.types import validate_settings
    from ...sim_beamline.beamline import BeamlineSettings, SimBeamline
    from ..session import end_like_ctrl_c

    with exit_on_error(), ExitStack() as resources:
        chosen: dict[str, Any] = {"seed": seed, "frames": frames, "mode": mode, "frame_period_s": period}
        settings = validate_settings(chosen, BeamlineSettings, "sim")
        curve = Curve(curve_key, curve_server_key, curve_clients)
        curve.refuse_unused([not connect, True])  # documents and requests
        documents = {"address": publish, "bind": not connect, **curve.of(binds=not connect)}
        sink = ZMQSink(validate_settings(documents, ZMQEndpoint, "--publish"))
        folder = resources.enter_context(TemporaryDirectory(prefix="xas-agent-"))
        requests = {"address": control or f"ipc://{folder}/control", "bind": True, **curve.of(binds=True)}
        requests |= {"secret_file": control_secret} if control_secret else {}
        truth_sink = FileSink(truth) if truth else None
        beamline = SimBeamline(settings, [sink], [truth_sink] if truth_sink else [])
        end_like_ctrl_c()
        server = ControlServer(validate_settings(requests, ControlEndpoint, "--control"), beamline.obey)
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
