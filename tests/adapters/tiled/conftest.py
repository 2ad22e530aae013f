"""A real Tiled server without plugins (``tiled serve catalog``)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiled_server import KEY, serving

from xas_agent.adapters.tiled import TiledEndpoint


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a server, and a folder from which it may serve files."""
    folder = tmp_path_factory.mktemp("tiled")
    with serving("--temp", "--read", folder) as address:
        yield address, folder


@pytest.fixture
def catalogue(server: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> Iterator[Any]:
    """A container of its own on the server, as its client; and where files may be."""
    from tiled.client import from_uri

    monkeypatch.setenv("TILED_API_KEY", KEY)
    root = from_uri(f"http://{server[0]}", api_key=KEY)
    name = f"runs{len(root)}"
    made = root.create_container(key=name)
    folder = server[1] / name
    folder.mkdir()
    yield made, TiledEndpoint(uri=f"tiled://{server[0]}/{name}", past=10, follow=False), folder
    root.context.http_client.close()
