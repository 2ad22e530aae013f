"""A real RE Manager with Redis, in whose environment plans of the tests run."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from queue_server import QueueServer, client, serving

from xas_agent.adapters.queueserver import QueueServerControl


@pytest.fixture(scope="session")
def opened() -> Iterator[tuple[QueueServer, Any]]:
    with serving() as server, client(server) as api:
        api.environment_open()
        api.wait_for_idle(timeout=60)
        assert api.status()["worker_environment_exists"], server.log()
        yield server, api


@pytest.fixture
def api(opened: tuple[QueueServer, Any]) -> Iterator[Any]:
    """The queue server's own client; the manager is idle, without queue and history."""
    _, api = opened
    yield api
    if api.status(reload=True)["manager_state"] != "idle":
        with suppress(api.RequestFailedError):  # is paused, or has just ended
            api.re_pause("immediate")
            api.wait_for_idle_or_paused(timeout=60)
        with suppress(api.RequestFailedError):  # has ended
            api.re_abort()
        api.wait_for_idle(timeout=60)
    api.queue_clear()
    api.history_clear()


@pytest.fixture
def server(opened: tuple[QueueServer, Any], api: Any) -> QueueServer:
    """The server of ``api``, which has not recorded anything."""
    server, _ = opened
    (server.folder / "runs.jsonl").unlink(missing_ok=True)
    return server


@pytest.fixture
def make_control() -> Iterator[Callable[..., QueueServerControl]]:
    """Make controls as agents make them, one after another."""
    controls: list[QueueServerControl] = []

    def make(server: QueueServer, **settings: Any) -> QueueServerControl:
        controls.append(QueueServerControl(server.settings(**settings)))
        return controls[-1]

    yield make
    for control in controls:
        control.close()


@pytest.fixture
def control(make_control: Callable[..., QueueServerControl], server: QueueServer) -> QueueServerControl:
    return make_control(server)
