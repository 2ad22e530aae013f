"""The ``xas-agent`` command, composed of the commands in :mod:`xas_agent.app.commands`."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ._version import __version__
from .app.commands import (
    align,
    backfill,
    calibrate,
    convert,
    dataset,
    doctor,
    evaluate,
    infer,
    init,
    inspect,
    keys,
    models,
    operate,
    rebuild,
    replay,
    report,
    rules,
    run,
    serve,
    sim,
    standards,
    train,
    view,
)
from .app.commands.examples import all_exit_codes, help_end
from .app.commands.process import keep_streams, log_from
from .app.commands.shared import WithDashboard

_WHOLE_SENTENCE = 200  # in characters: longer than the first sentence of any command

PANELS: dict[str, dict[str, typer.Typer | Callable[..., Any]]] = {
    "First steps": {"init": init.init, "doctor": doctor.doctor},
    "Watch an experiment": {
        "run": run.run,
        "replay": replay.replay,
        "sim": sim.sim,
        "view": view.view,
        "report": report.report,
    },
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
        "backfill": backfill.backfill,
        "serve": serve.serve,
    },
    "Models": {
        "models": models.models_app,
        "dataset": dataset.dataset_app,
        "train": train.train,
        "evaluate": evaluate.evaluate,
        "calibrate": calibrate.calibrate,
        "standards": standards.standards,
    },
    "Files and keys": {"rebuild": rebuild.rebuild, "keys": keys.keys_app},
}
"""The commands by purpose, in the order of use."""


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
    epilog=all_exit_codes(),
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel in PANELS.values():
    for name, member in panel.items():
        if isinstance(member, typer.Typer):
            for command in member.registered_commands:
                assert command.name is not None
                command.epilog = help_end(f"{name} {command.name}")
            app.add_typer(member, name=name)
        else:
            app.command(name, cls=WithDashboard if name in ("run", "replay") else None, epilog=help_end(name))(member)

START = """\
xas-agent reads X-ray absorption data while an experiment runs: oxidation
state, coordination and bond lengths of each spectrum, and your rules on them.

See it work, without a beamline:
  xas-agent run                watch a simulated cathode charge, a minute

With data of yours:
  xas-agent infer FILE...      oxidation state and bond lengths of spectra
  xas-agent inspect SOURCE     what is in a stream, a recording or a folder?

At your beamline:
  xas-agent doctor             is this machine ready?
  xas-agent init               a few questions, and a config that runs
  xas-agent rules explain agent.yaml     check what it would do
  xas-agent run --config agent.yaml --out night1 --dashboard
  xas-agent report night1      what came out, as one page

  xas-agent --help             all commands
  xas-agent run --help         one command, with examples
"""
"""The text of the command without arguments: the first steps, on one screen."""


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    log_level: Annotated[str, typer.Option(help="Least level to log: debug, info, warning or error.")] = "info",
) -> None:
    keep_streams()
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(START, nl=False)
        raise typer.Exit
    log_from(log_level)
