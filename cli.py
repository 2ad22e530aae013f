"""The ``xas-agent`` command, composed of the commands in :mod:`xas_agent.app.commands`."""

from typing import Annotated

import typer

from ._version import __version__
from .app.commands import (
    align,
    calibrate,
    convert,
    dataset,
    evaluate,
    infer,
    inspect,
    keys,
    models,
    operate,
    rebuild,
    replay,
    rules,
    run,
    sim,
    standards,
    train,
)
from .app.commands.process import keep_streams, log_from
from .app.commands.shared import exit_codes_help

app = typer.Typer(
    help="Understands X-ray absorption data while the experiment runs, and acts on it.",
    epilog=exit_codes_help(),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (run, inspect, replay, rebuild, sim, infer, align, convert, train, evaluate, standards, calibrate):
    app.command()(getattr(module, module.__name__.rpartition(".")[2]))
for command in (
    operate.status,
    operate.pending,
    operate.approve,
    operate.reject,
    operate.pause,
    operate.resume,
    operate.stop,
    operate.halt,
    operate.release,
):
    app.command(rich_help_panel="A running session")(command)
app.add_typer(models.models_app, name="models")
app.add_typer(rules.rules_app, name="rules")
app.add_typer(keys.keys_app, name="keys")
app.add_typer(dataset.dataset_app, name="dataset")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    log_level: Annotated[str, typer.Option(help="Least level to log: debug, info, warning or error.")] = "info",
) -> None:
    keep_streams()
    if version:
        typer.echo(__version__)
        raise typer.Exit
    log_from(log_level)
