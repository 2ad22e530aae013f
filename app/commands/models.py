"""``xas-agent models``: what models there are, their cards, and whether their files are what the cards say."""

from typing import Annotated

import typer

from .shared import told

models_app = typer.Typer(help="The models at hand.", no_args_is_help=True)


@models_app.command("list")
def models_list() -> None:
    """The installed models."""
    from ...models import card

    with told():
        for name, folder in card.installed().items():
            c = card.read_card(folder)
            typer.echo(f"{name:8} {c.absorber} {c.edge}  {c.training['members']} members  sha256 {c.sha256[:12]}")


@models_app.command("show")
def models_show(name: Annotated[str, typer.Argument(help="Model name or folder.")]) -> None:
    """A model's card."""
    from ...models import card

    with told():
        folder = card.find(name)
        card.read_card(folder)
        typer.echo((folder / "card.yaml").read_text())


@models_app.command("verify")
def models_verify(name: Annotated[str, typer.Argument(help="Model name or folder.")]) -> None:
    """Check a model's file against its card."""
    from ...models import card

    with told():
        folder = card.find(name)
        typer.echo(f"{card.verify(folder).name}: {folder / 'model.ts'} matches its card")
