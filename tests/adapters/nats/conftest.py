"""A real NATS server with JetStream."""

from collections.abc import Iterator

import pytest
from nats_server import Server

from xas_agent.adapters.nats import source


@pytest.fixture(autouse=True)
def no_wait_for_acknowledgements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers in tests acknowledge little, and need not wait for it at their end."""
    monkeypatch.setattr(source, "RELEASE_S", 0.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("nats"))
    yield made
    made.kill()
