"""``xas-agent serve``: the models stay loaded, and answer scripts at once."""

import shlex
from typing import Annotated

import typer

from ..ask import Refused, sockets_folder
from .options import ConfigOption, EdgeOption, ElementOption, ModelOption, SocketOption
from .process import set_up_torch
from .shared import USAGE, exit_on_error, fail, settings_of

SOCKET = "infer.socket"
"""Name of the socket in the folder of the sockets of this user; sessions have names that end in ``.sock``."""


def serve(
    socket: SocketOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    config: ConfigOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Include descriptors without a meaning for a mixture of sites (PSGO, CN2).")
    ] = False,
) -> None:
    """Keep the models loaded, and answer infer at once, for scripts that call it often.

    It listens on a Unix socket that only you can open, and says at its start how scripts find it. Ctrl-C ends it.
    """
    from ..notebook import InferenceServer
    from ..signals import end_like_ctrl_c

    with exit_on_error():
        settings = settings_of(config, model, element, edge, single_site=everything)
        set_up_torch(settings.model.threads, settings.serving.precision, settings.model.engine)
        end_like_ctrl_c()
        try:
            path = socket or sockets_folder() / SOCKET
        except (Refused, OSError) as error:
            fail(f"no folder for the socket ({error}); name a socket with --socket", USAGE)
        server = InferenceServer(settings, path.absolute())
        try:
            typer.echo(f"export XAS_AGENT_SOCKET={shlex.quote(str(server.path))}")
            server.serve()
        except KeyboardInterrupt:
            pass  # Ctrl-C is how users end the server
        finally:
            server.close()
