"""A real NATS server with JetStream."""

from collections.abc import Iterator

import pytest
from nats_server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("nats"))
    yield made
    made.kill()
