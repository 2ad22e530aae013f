"""``xas-agent rules``: rules in words, on a recording, and their schema."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import ModelOption
from .shared import exit_on_error

if TYPE_CHECKING:
    from ...agent.decide import Rule
    from ...agent.types import Decision
    from ..jobs.rehearse import Recording, Rehearsed

rules_app = typer.Typer(
    help="Explain rules, rehearse them on a recording, and print their schema.", no_args_is_help=True
)

RulesFile = Annotated[Path, typer.Argument(help="Config with the rules, YAML.")]


@rules_app.command("test")
def rehearse_rules(
    rules: RulesFile,
    recording: Annotated[Path, typer.Argument(help="Output folder of run or replay, or its documents.jsonl.")],
    figure: Annotated[Path | None, typer.Option(help="PNG file to draw.")] = None,
) -> None:
    """Show what rules would have decided on a recording, by its own times, and what with one setting changed.

    Nothing is sent. Example: xas-agent rules test mine.yaml out --figure rehearsal.png
    """
    from ..config import load_config
    from ..jobs.rehearse import read_recording, rehearse
    from ..output.tables import print_table

    with exit_on_error():
        wanted = _rules_of(load_config(rules).rules, rules)
        recorded = read_recording(recording)
        rehearsed = rehearse(wanted, recorded)
    for one in rehearsed:
        _say(one, recorded)
        if one.neighbours:
            rows = [_neighbour(text, one.decisions, other, recorded) for text, other in one.neighbours]
            print_table(["with one setting changed", "times", "first at", "confidence", "shift"], rows)
        typer.echo()
    if figure is not None:
        from ..jobs.rehearsal_figure import draw_rehearsal

        draw_rehearsal(figure, rehearsed, recorded)
        typer.echo(f"written {figure}")


@rules_app.command()
def explain(rules: RulesFile, model: ModelOption = None) -> None:
    """Say in words what rules do, and check them against the models.

    Example: xas-agent rules explain mine.yaml
    """
    from ..jobs.explain import explain as in_words
    from ..wiring import check_rules, load_models, units_of
    from .shared import settings_of

    with exit_on_error():
        settings = settings_of(str(rules), model, None, None)
        wanted = _rules_of(settings.rules, rules)
        models = load_models(settings)
        check_rules(settings, models)
    units = units_of(settings, models)
    for rule in wanted:
        typer.echo(f"{rule.name}: {in_words(rule, units)}")
        if rule.action == "notify":
            continue
        if not settings.control.enabled:
            typer.echo("  Advice only: control.enabled is false.")
        elif rule.action not in settings.control.allow:
            typer.echo(f"  It would be rejected: control.allow lacks {rule.action}.")
        elif (authority := settings.control.authority_for(rule.action)) != "act":
            waits = f"A person must approve it within {settings.control.confirm_within_s:g} s."
            typer.echo("  Advice only, by control.authority." if authority == "advise" else f"  {waits}")


@rules_app.command()
def schema() -> None:
    """Print the JSON schema of a config, with which an editor completes and checks rules.

    Example: xas-agent rules schema > config.schema.json, and as first line of the config
    # yaml-language-server: $schema=config.schema.json
    """
    from ..config import Config

    typer.echo(json.dumps(Config.model_json_schema(by_alias=False), indent=1))


def _rules_of(rules: "Sequence[Rule]", path: Path) -> "Sequence[Rule]":
    from ...agent.types import ConfigError

    if not rules:
        raise ConfigError(f"{path}: key rules: found none, expected at least one rule")
    return rules


def _say(one: "Rehearsed", recording: "Recording") -> None:
    from ..jobs.explain import explain as in_words

    typer.echo(f"{one.rule.name}: {in_words(one.rule, recording.units)}")
    if not one.decisions:
        typer.echo("  It would not have decided.")
    for d in one.decisions:
        at = datetime.fromtimestamp(d.time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        sample = f" of {d.scan.sample}" if d.scan.sample else ""
        typer.echo(f"  decided at {_at(d, recording)}{sample}, {at}, confidence {d.confidence:.2f}: {d.reason}")


def _neighbour(
    text: str, made: "Sequence[Decision]", other: "Sequence[Decision]", recording: "Recording"
) -> list[str]:
    if not other:
        return [text, "0", "never", "", ""]
    size, unit = recording.clock
    shift = f"{(other[0].time - made[0].time) / size:+.2f} {unit}" if made else ""
    return [text, str(len(other)), _at(other[0], recording), f"{other[0].confidence:.2f}", shift]


def _at(decision: "Decision", recording: "Recording") -> str:
    """Return the time of a decision since the first frame, with the newest frame of its evidence if it has one."""
    size, unit = recording.clock
    after = f"{(decision.time - recording.start) / size:.2f} {unit}"
    newest = decision.evidence[-1][0] if decision.evidence else ""
    number = next((frame.seq_num for frame, *_ in recording.frames if frame.uid == newest), None)
    return after if number is None else f"frame {number} ({after})"
