"""``xas-agent models``: the installed models, their cards and the verification of their files."""

from typing import Annotated

import typer

from .options import installed_models
from .shared import exit_on_error

models_app = typer.Typer(help="List, show and verify the installed models.", no_args_is_help=True)

NameArgument = Annotated[
    str, typer.Argument(help="Model by name or folder, e.g. ni-k.", autocompletion=installed_models)
]


@models_app.command("list")
def models_list() -> None:
    """List the installed models with absorber, edge, number of members and SHA-256."""
    from ...models import card

    with exit_on_error():
        for name, folder in card.installed().items():
            c = card.read_card(folder)
            typer.echo(f"{name:8} {c.absorber} {c.edge}  {c.training['members']} members  sha256 {c.sha256[:12]}")


@models_app.command("show")
def models_show(
    name: NameArgument,
    full: Annotated[bool, typer.Option("--full", help="The whole card, as it is in card.yaml.")] = False,
) -> None:
    """Show what a model answers, how good it is and where not to trust it, in one screen."""
    from ...models import card
    from ...models.glance import glance

    with exit_on_error():
        folder = card.find(name)
        shown = card.read_card(folder)
        typer.echo((folder / "card.yaml").read_text(encoding="utf-8") if full else glance(shown, name))


@models_app.command("verify")
def models_verify(name: NameArgument) -> None:
    """Check that a model's file matches the SHA-256 in its card."""
    from ...models import card

    with exit_on_error():
        folder = card.find(name)
        typer.echo(f"{card.verify(folder).name}: {folder / 'model.ts'} matches its card")
