"""``xas-agent rules``: rules in words, on a recording, their triggers and their schema."""

import json
import shlex
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import ColumnOption, EdgeOption, ElementOption, ModelOption
from .process import set_up_torch
from .shared import USAGE, check_folder_of, columns_of, exit_on_error, fail, refuse_unused, settings_of

if TYPE_CHECKING:
    from ...agent.decide import Rule
    from ...agent.types import Decision
    from ..config import Config
    from ..jobs.recording import Recording
    from ..jobs.rehearse import Rehearsed

rules_app = typer.Typer(
    help="Explain rules, rehearse them on a recording, list their triggers and print their schema.",
    no_args_is_help=True,
)

_NOT_YET = "not yet"

RulesFile = Annotated[Path, typer.Argument(help="Config with the rules, YAML.")]


@rules_app.command("test")
def rehearse_rules(
    rules: RulesFile,
    recording: Annotated[
        Path,
        typer.Argument(
            help="Output folder of run or replay, or its documents.jsonl; or what a beamline has recorded: a file of "
            "documents (.jsonl or .msgpack), a folder of measured files, or one with spectra.npz and series.csv."
        ),
    ],
    figure: Annotated[Path | None, typer.Option(help="PNG file to draw.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="New folder that keeps the answers for a beamline's recording, for the next test."
        ),
    ] = None,
    column: ColumnOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
) -> None:
    """Show what rules would have decided on a recording, by its own times, and what with one setting changed.

    Nothing is sent. An agent with the same config first answers what a beamline has recorded.
    """
    from ..config import load_config
    from ..jobs.recording import is_answered, read_recording, with_relative
    from ..jobs.rehearse import rehearse
    from ..output.tables import print_table

    with exit_on_error():
        if figure is not None:
            check_folder_of("--figure", figure)
            if figure.is_dir():
                fail(f"--figure {figure}: found a folder, expected the name of a PNG file", USAGE)
        if is_answered(recording):
            given = {"out": out, "column": column or None, "model": model, "element": element, "edge": edge}
            refuse_unused("on what an agent has answered", **given)
            settings = load_config(rules)
            wanted = _rules_of(settings.rules, rules)
            recorded = with_relative(read_recording(recording), settings)
        else:
            settings = settings_of(str(rules), model, element, edge)
            wanted = _rules_of(settings.rules, rules)
            recorded = _answered(recording, settings, out, column, element, edge)
        rehearsed = rehearse(wanted, recorded)
    if out is not None:
        typer.echo(
            f"written {out}/: xas-agent rules test {shlex.quote(str(rules))} {shlex.quote(str(out))} is instant\n"
        )
    if note := _unjoined(recorded):
        typer.echo(note)
    for one in rehearsed:
        _say(one, recorded)
        if one.neighbours:
            rows = [_neighbour(text, one.decisions, other, recorded) for text, other in one.neighbours]
            print_table(["with one setting changed", "times", "first at", "confidence", "shift"], rows)
            _say_of_the_end(one, recorded)
        typer.echo()
    if figure is not None:
        from ..jobs.rehearsal_figure import draw_rehearsal

        draw_rehearsal(figure, rehearsed, recorded)
        typer.echo(f"written {figure}")


@rules_app.command("explain")
def explain(rules: RulesFile, model: ModelOption = None) -> None:
    """Say in words what rules do, and check them against the models."""
    from ..explain import consequences
    from ..explain import explain as in_words
    from ..wiring import check_rules, load_models, units_of

    with exit_on_error():
        settings = settings_of(str(rules), model, None, None)
        models = load_models(settings)
        check_rules(settings, models)
    if not settings.rules:
        typer.echo(f"{rules} has no rules: the agent publishes its estimates and decides nothing")
    units = units_of(settings, models)
    for rule in settings.rules:
        typer.echo(f"{rule.name}: {in_words(rule, units)}")
        for sentence in consequences(rule, settings):
            typer.echo(f"  {sentence}")


@rules_app.command("triggers")
def triggers(
    kinds: Annotated[list[str] | None, typer.Argument(metavar="[KIND]...", help="Kinds; by default all.")] = None,
) -> None:
    """List the triggers of rules with their keys: type, default, unit and meaning."""
    from ...agent.types import InputError
    from ..jobs.keys import KEY_COLUMNS, plain
    from ..jobs.keys import triggers as all_triggers
    from ..output.tables import print_table, width_of_texts

    known = {kind: (about, rows) for kind, about, rows in all_triggers()}
    with exit_on_error():
        if unknown := [kind for kind in kinds or () if kind not in known]:
            raise InputError(f"found kind {unknown[0]!r}, expected one of {', '.join(known)}")
    for kind in kinds or known:
        about, rows = known[kind]
        typer.echo(textwrap.fill(f"{kind}: {plain(about)}", width_of_texts()))
        print_table(KEY_COLUMNS, [tuple(map(plain, row)) for row in rows], width=width_of_texts())
        typer.echo()


@rules_app.command("schema")
def schema() -> None:
    """Print the JSON schema of a config, with which an editor completes and checks rules."""
    from ..config import Config

    typer.echo(json.dumps(Config.model_json_schema(by_alias=False), indent=1))


def _answered(
    recording: Path, settings: "Config", out: Path | None, column: list[str] | None, *absorber: str | None
) -> "Recording":
    """Return what an agent answers for what a beamline has recorded."""
    from ..jobs.recording import answer
    from ..output.folder import OutputFolder
    from ..signals import end_like_ctrl_c

    columns, (element, edge) = columns_of(column), absorber
    if not recording.is_dir():
        refuse_unused("without a folder of measured files", column=column or None)
    set_up_torch(settings.model.threads, engine=settings.model.engine)
    end_like_ctrl_c()
    output = OutputFolder(out) if out else None
    return answer(recording, settings, output, element=element, edge=edge, columns=columns)


def _rules_of(rules: "Sequence[Rule]", path: Path) -> "Sequence[Rule]":
    from ...agent.types import ConfigError

    if not rules:
        raise ConfigError(f"{path}: key rules: found none, expected at least one rule")
    return rules


def _unjoined(recording: "Recording") -> str:
    """Return a note if each of several runs is a series of its own, so that no rule follows the experiment."""
    runs = {frame.run_uid for frame, *_ in recording.frames}
    if len(runs) < 2 or any(frame.scan.sample for frame, *_ in recording.frames):
        return ""
    return (
        f"The {len(runs)} runs name no sample, so that each is a series of its own, and rules begin anew with each.\n"
        "If they belong together, set series.key to the key of the RunStart that names the sample, and rehearse\n"
        "again on the recording; xas-agent inspect looks for such a key.\n"
    )


def _say(one: "Rehearsed", recording: "Recording") -> None:
    from ..explain import explain as in_words
    from ..jobs.closest import closest

    typer.echo(f"{one.rule.name}: {in_words(one.rule, recording.units)}")
    if not one.decisions:
        typer.echo("  It would not have decided before the recording ends.")
        typer.echo(f"  closest: {closest(one, recording)}")
    for d in one.decisions:
        at = datetime.fromtimestamp(d.time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        sample = f" of {d.scan.sample}" if d.scan.sample else ""
        typer.echo(f"  decided at {_at(d, recording)}{sample}, {at}, confidence {d.confidence:.2f}: {d.reason}")


def _say_of_the_end(one: "Rehearsed", recording: "Recording") -> None:
    """Say what "not yet" means, and whether the rule itself ended the recording."""
    if all(made for _, made in one.neighbours):
        return
    typer.echo(f"{_NOT_YET}: not before the recording ends")
    if one.rule.name in recording.stopped_by:
        typer.echo(
            "This rule stopped the recorded experiment, so that later decisions cannot be seen: record with "
            "control.enabled: false to compare them."
        )


def _neighbour(
    text: str, made: "Sequence[Decision]", other: "Sequence[Decision]", recording: "Recording"
) -> list[str]:
    if not other:
        return [text, "0", _NOT_YET, "", ""]
    size, unit = recording.clock
    shift = f"{(other[0].time - made[0].time) / size:+.2f} {unit}" if made else ""
    return [text, str(len(other)), _at(other[0], recording), f"{other[0].confidence:.2f}", shift]


def _at(decision: "Decision", recording: "Recording") -> str:
    """Return the time of a decision since the first frame, with the newest frame of its evidence if it has one."""
    size, unit = recording.clock
    after = f"{(decision.time - recording.start) / size:.2f} {unit}"
    newest = decision.evidence[-1][0] if decision.evidence else ""
    frame = next((frame for frame, *_ in recording.frames if frame.uid == newest), None)
    if frame is None:
        return after
    several = len({one.run_uid for one, *_ in recording.frames}) > 1  # each run counts its frames from 1
    scan = f" of scan {frame.scan.scan_id}" if several and frame.scan.scan_id else ""
    return f"frame {frame.seq_num}{scan} ({after})"
