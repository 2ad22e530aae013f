"""``xas-agent sim``: the simulated beamline alone."""

import json
import sys
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import ControlSecretOption, CurveClientsOption, CurveKeyOption, CurveServerKeyOption
from .shared import USAGE, Curve, broker_of, exit_on_error, fail, refuse_unused

if TYPE_CHECKING:
    from ...adapters.kafka import KafkaSink
    from ...adapters.nats import NATSSink
    from ...adapters.zmq import ZMQSink
    from ...sim_beamline.settings import BeamlineSettings

DEFAULT_PERIOD_S = 0.4
"""Wall time from one spectrum to the next, s."""


def sim(
    config: Annotated[
        str | None,
        typer.Option(
            help="A config with a simulation, which is measured: a YAML file, or the name of a shipped one such as "
            "stories/charge. Other options replace its keys."
        ),
    ] = None,
    publish: Annotated[
        str,
        typer.Option(
            help="Address for documents: zmq://HOST:PORT, on which port 0 selects a free port; "
            "nats://HOST:PORT/SUBJECT or kafka://HOST:PORT/TOPIC."
        ),
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
    robot: Annotated[
        str | None,
        typer.Option(
            help="Address at which a robot serves that changes the samples; as for --control. [default: no robot]"
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Number of the robot's samples. [default: 4]")] = None,
    change: Annotated[
        float | None, typer.Option(min=0, help="Time that the robot takes to load or unload, s. [default: 2]")
    ] = None,
    safe_after: Annotated[
        float | None,
        typer.Option(min=0.1, help="Time without a heartbeat until the robot's safe state, s. [default: 10]"),
    ] = None,
    memory: Annotated[
        Path | None,
        typer.Option(help="File in which the robot remembers its actions over a restart. [default: not written]"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the simulated noise and sample. [default: 0]")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Number of planned spectra. [default: 80]")] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="fly: one Event per spectrum; step: one Event per energy; adaptive: an Event per energy, each "
            "chosen by what is known already, then one with the spectrum. [default: fly]"
        ),
    ] = None,
    adaptive: Annotated[bool, typer.Option("--adaptive", help="The same as --mode adaptive.")] = False,
    period: Annotated[
        float | None, typer.Option(min=0, help="Time from one spectrum to the next, s. [default: 0.4]")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="File for the true values, which are not published, .jsonl. [default: not written]"),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="File for the documents, as they are published, .jsonl. [default: not written]"),
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

    The command prints one line of JSON with its addresses and waits for a subscriber before the first document; not
    if a broker keeps the documents. With --robot it measures each sample that the robot loads, until Ctrl-C. A config
    selects another experiment.
    """
    from ...adapters.errors import EndpointUnreachable
    from ...adapters.files import FileSink
    from ...adapters.robot import RobotServer
    from ...adapters.zmq import ControlEndpoint, ControlServer, ZMQSink
    from ...agent.types import validate_settings
    from ...sim_beamline.beamline import ChangingBeamline, SimBeamline
    from ...sim_beamline.sample_changer import SampleChanger, magazine
    from ..signals import end_like_ctrl_c

    with exit_on_error(), ExitStack() as resources:
        mode = "adaptive" if adaptive else mode
        chosen: dict[str, Any] = {"seed": seed, "frames": frames, "mode": mode, "frame_period_s": period}
        settings = _settings(config, {name: value for name, value in chosen.items() if value is not None})
        places = settings.experiment.places
        curve = Curve(curve_key, curve_server_key, curve_clients)
        sink = _sink(publish, curve, connect)
        resources.callback(sink.close)
        if places:
            refuse_unused("for an experiment with samples of its own", samples=samples)
        elif robot is None:
            refuse_unused("without --robot", samples=samples, change=change, safe_after=safe_after, memory=memory)
        folder = resources.enter_context(TemporaryDirectory(prefix="xas-agent-"))
        security = {"bind": True, **curve.of(binds=True)}
        with_secret = security | ({"secret_file": control_secret} if control_secret else {})
        requests = {"address": f"ipc://{folder}/control", **(security if robot else with_secret)}
        robot = robot or (f"ipc://{folder}/robot" if places else None)
        requests = requests if control is None else {"address": control, **with_secret}
        truth_sinks = [] if truth is None else [resources.enter_context(closing(FileSink(truth)))]
        records = [] if record is None else [resources.enter_context(closing(FileSink(record)))]
        change_s = settings.experiment.change_time_s if change is None else change
        changer = None if robot is None else SampleChanger(magazine(places or samples or 4), change_s)
        if changer is None:
            beamline = SimBeamline(settings, [sink, *records], truth_sinks)
        else:
            beamline = ChangingBeamline(settings, changer, [sink, *records], truth_sinks)
        end_like_ctrl_c()
        server = ControlServer(validate_settings(requests, ControlEndpoint, "--control"), beamline.obey)
        resources.callback(server.close)
        with suppress(KeyboardInterrupt):
            addresses = {"control": server.address}
            if changer is not None:
                endpoint = validate_settings({"address": robot, **with_secret}, ControlEndpoint, "--robot")
                served = RobotServer(endpoint, changer, safe_after or 10.0, memory)
                resources.callback(served.close)
                addresses["robot"] = served.address
            sink.connect()
            addresses["documents"] = sink.address if isinstance(sink, ZMQSink) else publish
            typer.echo(json.dumps({name: _zmq(address) for name, address in addresses.items()}))
            sys.stdout.flush()
            if isinstance(sink, ZMQSink) and not sink.wait_for_subscriber(wait or None):
                raise EndpointUnreachable(sink.address, f"nobody subscribed within {wait:g} s")
            beamline.run()


def _sink(publish: str, curve: Curve, connect: bool) -> "ZMQSink | NATSSink | KafkaSink":
    """Return what publishes the documents."""
    from ...adapters.kafka import KafkaDestination, KafkaSink
    from ...adapters.nats import NATSDestination, NATSSink
    from ...adapters.zmq import ZMQEndpoint, ZMQSink
    from ...agent.types import validate_settings

    broker, documents = broker_of(publish), {"address": publish}
    if broker:
        refuse_unused("for a broker", connect=connect or None)
    curve.refuse_unused([True] if broker else [not connect, True])  # sockets of documents and requests
    if broker == "nats":
        return NATSSink(validate_settings(documents, NATSDestination, "--publish"))
    if broker == "kafka":
        return KafkaSink(validate_settings(documents, KafkaDestination, "--publish"))
    secured = {**documents, "bind": not connect, **curve.of(binds=not connect)}
    return ZMQSink(validate_settings(secured, ZMQEndpoint, "--publish"))


def _settings(config: str | None, chosen: dict[str, Any]) -> "BeamlineSettings":
    """Return the settings of a config, with those of the command line in their place."""
    from ...agent.types import validate_settings
    from ...sim_beamline.settings import BeamlineSettings
    from ..config import load_config

    if config is None:
        return validate_settings({"frame_period_s": DEFAULT_PERIOD_S, **chosen}, BeamlineSettings, "sim")
    simulation = load_config(config).simulation
    if simulation is None:
        fail(f"--config {config}: found no simulation, expected a config with one, such as stories/charge", USAGE)
    return validate_settings({**simulation.model_dump(), **chosen}, BeamlineSettings, "sim")


def _zmq(address: str) -> str:
    return address.replace("tcp://", "zmq://")
