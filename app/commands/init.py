"""``xas-agent init``: the first config of a beamline, from what its documents or files contain."""

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .inspect import WIDTH, Looked, look, show_reading, show_samples
from .options import ConnectTimeoutOption, EdgeOption, ElementOption, PresetOption
from .run import RECORDINGS
from .shared import USAGE, broker_of, check_folder_of, exit_on_error, fail, is_tiled

if TYPE_CHECKING:
    from ..config import Config
    from ..jobs.first_config import FirstRule

ACTIONS = ("pause", "stop", "notify")
SIMULATED_LEVEL = 3.3
"""Oxidation state that the simulated charge reaches on its way, e."""


def init(
    source: Annotated[
        str | None,
        typer.Argument(
            help="zmq://HOST:PORT, tiled://HOST:PORT/PATH, a folder of files, or a recording (.jsonl, .msgpack). "
            "[default: asked on a terminal, else the simulated beamline]"
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Config to write; an existing one is kept.")] = Path(
        "agent.yaml"
    ),
    preset: PresetOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model by name or folder. [default: that of the element]")
    ] = None,
    quantity: Annotated[
        str | None, typer.Option(help="What the rule watches, a descriptor. [default: OS, the oxidation state]")
    ] = None,
    above: Annotated[
        float | None, typer.Option(help="The rule fires above this. [default: the middle of what the model knows]")
    ] = None,
    below: Annotated[float | None, typer.Option(help="The rule fires below this.")] = None,
    action: Annotated[
        Literal["pause", "stop", "notify"] | None, typer.Option(help="What the rule requests. [default: pause]")
    ] = None,
    authority: Annotated[
        Literal["off", "confirm"] | None,
        typer.Option(help="off: decisions are advice; confirm: a person approves each. [default: off]"),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            help="Where the beamline takes requests: ipc:///PATH, zmq://HOST:PORT, or tcp://HOST:PORT of a queue "
            "server. [default: none]"
        ),
    ] = None,
    look_at: Annotated[
        bool, typer.Option("--look/--no-look", help="Whether to look at the source, which must then send documents.")
    ] = True,
    timeout: Annotated[float, typer.Option(min=0.1, help="Longest wait for a run of the source, s.")] = 120.0,
    connect_timeout: ConnectTimeoutOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing, also on a terminal.")] = False,
) -> None:
    """Write a first config: what to read, the model, one rule that does nothing unasked, and who decides.

    On a terminal it asks what the options do not say. It looks at the source as xas-agent inspect does.
    """
    from ...agent.fields import FieldSettings
    from ...agent.types import validate_settings
    from ..jobs.first_config import FirstRule, check_model, check_quantity, config_text, middle_of, models_of
    from ..jobs.inspect import settings_text

    asks = not yes and sys.stdin.isatty() and sys.stdout.isatty()
    with exit_on_error():
        if out.exists():
            fail(f"--out {out}: found an existing file, expected a new one: it is kept", USAGE)
        check_folder_of("--out", out)
        if above is not None and below is not None:
            fail("--above and --below: expected one of them", USAGE)
        source = source if source is not None or not asks else _ask_source()
        looked = None
        if source and look_at:
            looked = look(
                source, 1, timeout, preset=preset, element=element, edge=edge, connect_timeout=connect_timeout
            )
            _show(looked, model)
        element, edge = _absorber(looked, element, edge, asks) if source else ("Co", "K")
        absorber = validate_settings({"element": element, "edge": edge}, FieldSettings, "command line")
        element, edge = absorber.element, absorber.edge
        if model:
            check_model(model, element, edge)
        models = [model] if model else models_of(element, edge)
        rule = FirstRule(quantity or "OS", above, below, action or "pause", authority or "off")
        if above is None and below is None:
            rule = replace(rule, above=middle_of(models, rule.quantity) if source else SIMULATED_LEVEL)
        rule = _ask_rule(rule, quantity, above, below, action, authority) if asks else rule
        check_quantity(models, rule.quantity)
        settings = _settings(looked, source, preset, element, edge)
        named = looked is not None and (looked.files is None or looked.files.unknown is None)
        reading = settings_text(looked.inspection, settings, looked.source) if looked and named else _unseen(settings)
        origin = source or "the simulated beamline"
        kind = "simulated" if not source else "files" if looked and looked.files is not None else "documents"
        text = config_text(reading, origin, models, rule, control=control, kind=kind)
        out.write_text(text, encoding="utf-8")
    _conclude(out, looked, source, rule, control)


def _ask_source() -> str:
    typer.echo("Where do the spectra come from?")
    typer.echo("  zmq://HOST:PORT of a bluesky proxy's out-port, tiled://HOST:PORT/PATH,")
    typer.echo("  a folder of files, or a recording (.jsonl, .msgpack);")
    typer.echo("  nothing for the simulated beamline")
    return typer.prompt("Source", default="", show_default=False).strip()


def _show(looked: Looked, model: str | None) -> None:
    best = looked.inspection.best
    if best is None:
        typer.echo("No stream shows an energy or intensities; name them under fields in the config.")
    else:
        show_reading(best, of_files=looked.files is not None, model=model)
        if looked.files is None:
            show_samples(looked.inspection)
    typer.echo()


def _absorber(
    looked: Looked | None, element: str | None, edge: str | None, asks: bool
) -> tuple[str | None, str | None]:
    """Return element and edge: as given, as the runs name them, as the energies show them, or as a person says."""
    best = looked.inspection.best if looked is not None else None
    run = best.stream.run if best is not None else None
    seen = best.edges[0] if best is not None and best.edge_seen and best.edges else None
    element = element or (run.element if run else None)
    edge = edge or (run.edge if run else None)
    guessed = element or (seen.element if seen else None)
    if asks and element is None:
        guessed = typer.prompt("Element, e.g. Ni", default=guessed or "", show_default=bool(guessed)).strip() or None
    if edge is None and seen is not None and guessed == seen.element:
        edge = seen.edge
    return guessed, edge


def _ask_rule(
    rule: "FirstRule",
    quantity: str | None,
    above: float | None,
    below: float | None,
    action: str | None,
    authority: str | None,
) -> "FirstRule":
    """Return the rule as a person wants it; what an option says is not asked."""
    if quantity is None:
        rule = replace(rule, quantity=typer.prompt("The rule watches", default=rule.quantity).strip())
    if above is None and below is None:
        level = typer.prompt("and fires above (or <LEVEL for below)", default=f"{rule.above:g}").strip()
        rule = _with_level(rule, level)
    if action is None:
        rule = replace(rule, action=_choice("It requests", ACTIONS, rule.action))
    if authority is None and rule.action != "notify":
        said = _choice("off: advice only; confirm: a person approves", ("off", "confirm"), rule.authority)
        rule = replace(rule, authority="confirm" if said == "confirm" else "off")
    return rule


def _with_level(rule: "FirstRule", text: str) -> "FirstRule":
    try:
        level = float(text.lstrip("<>").strip())
    except ValueError:
        fail(f"found {text!r}, expected a level such as 3.5, or <3.5", USAGE)
    return replace(rule, above=None, below=level) if text.startswith("<") else replace(rule, above=level, below=None)


def _choice(question: str, choices: tuple[str, ...], default: str) -> str:
    while (said := typer.prompt(f"{question} ({', '.join(choices)})", default=default).strip()) not in choices:
        typer.echo(f"  found {said!r}, expected {' or '.join(choices)}")
    return said


def _settings(
    looked: Looked | None, source: str | None, preset: str | None, element: str | None, edge: str | None
) -> "Config":
    """Return what was looked at with, and the absorber unless the documents name it."""
    from ...agent.types import validate_settings
    from ..config import Config
    from .shared import settings_of

    listens = source is not None and (source.startswith("zmq://") or is_tiled(source) or bool(broker_of(source)))
    settings = looked.settings if looked else settings_of(None, source=source if listens else None, preset=preset)
    run = looked.inspection.best.stream.run if looked and looked.inspection.best else None
    absorber = {} if source is None or (run and run.element) else {"element": element, "edge": edge}
    content = settings.model_dump(exclude_unset=True)
    named = {key: value for key, value in absorber.items() if value is not None}
    content["fields"] = {**content.get("fields", {}), **named}
    return validate_settings(content if content["fields"] else {**content, "fields": {}}, Config, "command line")


def _unseen(settings: "Config") -> str:
    """Return the settings of a source that was not looked at, as YAML."""
    import yaml

    from ..jobs.first_config import LIVE

    content = settings.model_dump(mode="json", exclude_unset=True)
    if settings.preset:
        content = {"preset": settings.preset, **{key: content[key] for key in LIVE if key in content}}
    content = {key: value for key, value in content.items() if value}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True) if content else ""


def _conclude(out: Path, looked: Looked | None, source: str | None, rule: "FirstRule", control: str | None) -> None:
    """Say what was written, and the commands that follow."""
    config, columns = shlex.quote(str(out)), _columns(looked)
    typer.echo(f"written {out}: the rule {rule.name!r}, {_who(rule)}")
    if looked is not None and not looked.inspection.then.frames and not columns:
        typer.echo(f"no spectrum is read with it yet: name the fields in {out}, then inspect with --config {config}")
    if rule.authority == "confirm" and rule.action != "notify" and source and control is None:
        typer.echo("to be carried out, requests need control_endpoint or queue_server: name one in it")
    live, recording = _kind(looked, source)
    if not source or live:
        trial = f"xas-agent run --config {config} --out trial"
        rehearse = [trial, f"xas-agent rules test {config} trial --figure rehearsal.png"]
        watch = f"xas-agent run --config {config} --out night1"
    else:
        read = Path(looked.source if looked is not None else source)
        folder = shlex.quote(str(read if recording or read.is_dir() else read.parent))
        test = f"xas-agent rules test {config} {folder}{columns}"
        rehearse = [f"{test} --out rehearsed --figure rehearsal.png"]
        option = "--source" if recording else "--folder"
        watch = f"xas-agent run --config {config} {option} {folder}{columns} --out trial"
    check = [f"xas-agent rules explain {config}", f"xas-agent doctor --config {config}"]
    steps = [("Check it:", check), ("Rehearse it:", rehearse), ("Run it:", [watch])]
    if recording:
        there = f"xas-agent run --config {config} --source zmq://HOST:5578 --out night1"
        steps.append(("At the beamline, with the out-port of its proxy:", [there]))
    for title, commands in steps:
        typer.echo(title)
        for command in commands:
            typer.echo(_shown(command))


def _kind(looked: Looked | None, source: str | None) -> tuple[bool, bool]:
    """Return whether a source is an endpoint, and whether it is a recording of documents."""
    if looked is not None:
        return looked.listens, not looked.listens and looked.files is None
    live = source is not None and "://" in source
    return live, source is not None and Path(source).suffix in RECORDINGS


def _shown(command: str) -> str:
    """Return a command as lines to copy, broken before options where it is longer than a line."""
    lines = ["  xas-agent"]
    for part in re.split(r" (?=--)", command.removeprefix("xas-agent ")):
        if len(lines[-1]) + len(part) + len("  \\") > WIDTH:
            lines.append("     ")
        lines[-1] += f" {part}"
    return " \\\n".join(lines)


def _who(rule: "FirstRule") -> str:
    if rule.action == "notify":
        return "which tells only"
    return "switched off (advice only)" if rule.authority == "off" else "which a person confirms"


def _columns(looked: Looked | None) -> str:
    """Return the options for the columns of files that no name tells."""
    from ..jobs.inspect import read_columns

    if looked is None or looked.files is None or looked.files.unknown is None:
        return ""
    options, _ = read_columns(looked.files.unknown, looked.inspection.proposed)
    return "".join(f" --column {shlex.quote(option)}" for option in options)
