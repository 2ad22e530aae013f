"""``xas-agent keys``: the CURVE keys of a beamline, and which clients they let in."""

from pathlib import Path
from typing import Annotated

import typer

from .shared import exit_on_error

keys_app = typer.Typer(help="Make, list and revoke the keys of ZMQ endpoints.", no_args_is_help=True)

FolderOption = Annotated[Path, typer.Option("--folder", help="Folder of the keys.")]


@keys_app.command("make")
def keys_make(
    name: Annotated[str, typer.Argument(help="Name of the program or person that will hold the keys, e.g. agent.")],
    server: Annotated[bool, typer.Option("--server", help="Keys of a side that binds; it is no client.")] = False,
    folder: FolderOption = Path("keys"),
) -> None:
    """Make a pair of keys, and permit it as a client.

    NAME.key_secret belongs to its holder alone; NAME.key may be known. The folder FOLDER/clients is the list of
    permitted clients, for --curve-clients and curve_client_keys.
    """
    from ...adapters.zmq import make_keys

    with exit_on_error():
        typer.echo(make_keys(folder, name, client=not server))


@keys_app.command("secret")
def keys_secret(file: Annotated[Path, typer.Argument(help="New file.")]) -> None:
    """Make a secret that both sides of a control on this machine share, in place of keys."""
    from ...adapters.zmq import make_secret

    with exit_on_error():
        make_secret(file)
        typer.echo(file)


@keys_app.command("list")
def keys_list(folder: FolderOption = Path("keys")) -> None:
    """List the clients, their public keys, and whether they are permitted."""
    from ...adapters.zmq import CLIENTS, REVOKED, public_keys

    with exit_on_error():
        for part, state in ((CLIENTS, "permitted"), (REVOKED, "revoked")):
            for name, key in public_keys((folder / part).glob("*.key")).items():
                typer.echo(f"{name:20} {state:9} {key}")


@keys_app.command("revoke")
def keys_revoke(
    name: Annotated[str, typer.Argument(help="Name of the client.")], folder: FolderOption = Path("keys")
) -> None:
    """Withdraw a client's permission. Running servers notice within a second."""
    from ...adapters.zmq import revoke

    with exit_on_error():
        revoke(folder, name)
        typer.echo(f"{name} is revoked")
