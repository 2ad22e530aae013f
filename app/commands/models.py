"""``xas-agent models``: the installed models, their cards and the verification of their files."""

from pathlib import Path
from typing import Annotated

import typer

from .options import installed_models
from .shared import FAILED, USAGE, exit_on_error, fail

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


@models_app.command("export")
def models_export(
    name: NameArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder for a copy of the model; else the model's own folder.")
    ] = None,
) -> None:
    """Add a file for ONNX Runtime to a model folder, for model.engine: onnx.

    The file is compared with model.ts by the answers to 256 spectra, and its SHA-256 enters the card.
    """
    from ...models import card

    with exit_on_error():
        folder = card.find(name)
        if out is None and folder in card.installed().values():
            fail(f"{name} is installed with the package, which stays as it is: name a folder with --out", USAGE)
        from ...models.engines.export import export

        difference = export(folder, out)
        typer.echo(f"{(out or folder) / 'model.onnx'}: answers within {difference:.1e} of model.ts")


@models_app.command("verify")
def models_verify(name: NameArgument) -> None:
    """Check that a model's files match the SHA-256 in its card, and that all engines give the same answers."""
    from ...models import card
    from ...models.engines import ONNX_FILE

    with exit_on_error():
        folder = card.find(name)
        found = card.verify(folder)
        typer.echo(f"{found.name}: {folder / 'model.ts'} matches its card")
        if ONNX_FILE not in found.files:
            return
        typer.echo(f"{found.name}: {folder / ONNX_FILE} matches its card")
        from ...models.convert import TOLERANCE
        from ...models.engines.export import difference_of_engines

        difference = difference_of_engines(folder)
        typer.echo(f"{found.name}: {ONNX_FILE} answers within {difference:.1e} of model.ts")
        if not difference <= TOLERANCE:
            fail(f"{folder}: the answers differ by more than {TOLERANCE:.0e}: export the model again", FAILED)
