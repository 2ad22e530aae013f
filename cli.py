"""The ``xas-agent`` command, composed of the commands in :mod:`xas_agent.app.commands`."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

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
    report,
    rules,
    run,
    sim,
    standards,
    train,
    view,
)
from .app.commands.process import keep_streams, log_from
from .app.commands.shared import WithDashboard, exit_codes_help

_WHOLE_SENTENCE = 200  # characters, more than the first sentence of any command has

PANELS: dict[str, dict[str, typer.Typer | Callable[..., Any]]] = {
    "Watch an experiment": {"run": run.run, "replay": replay.replay, "sim": sim.sim, "view": view.view},
    "Decide": {
        "rules": rules.rules_app,
        "status": operate.status,
        "pending": operate.pending,
        "approve": operate.approve,
        "reject": operate.reject,
        "pause": operate.pause,
        "resume": operate.resume,
        "stop": operate.stop,
        "halt": operate.halt,
        "release": operate.release,
    },
    "Look at data": {
        "inspect": inspect.inspect,
        "convert": convert.convert,
        "align": align.align,
        "infer": infer.infer,
    },
    "Models": {
        "models": models.models_app,
        "dataset": dataset.dataset_app,
        "train": train.train,
        "evaluate": evaluate.evaluate,
        "calibrate": calibrate.calibrate,
        "standards": standards.standards,
    },
    "Files and keys": {"report": report.report, "rebuild": rebuild.rebuild, "keys": keys.keys_app},
}
"""The commands by what they are for, in the order of use."""


class Panels(TyperGroup):
    """The commands of :data:`PANELS`; ``--help`` shows each panel under its title, with whole first sentences."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for names in PANELS.values() for name in names]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, names in PANELS.items():
            with formatter.section(title):
                rows = [(f"{name:<9}", self.commands[name].get_short_help_str(_WHOLE_SENTENCE)) for name in names]
                formatter.write_dl(rows)


app = typer.Typer(
    cls=Panels,
    help="Understands X-ray absorption data while the experiment runs, and acts on it.",
    epilog=exit_codes_help(),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel in PANELS.values():
    for name, member in panel.items():
        if isinstance(member, typer.Typer):
            app.add_typer(member, name=name)
        else:
            app.command(name, cls=WithDashboard if name in ("run", "replay") else None)(member)


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
