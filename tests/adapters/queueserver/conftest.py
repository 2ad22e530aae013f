"""A real RE Manager with Redis, in whose environment plans of the tests run."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from deadline import wait_until
from queue_server import QueueServer, client, serving

from xas_agent.adapters.queueserver import QueueServerControl


@pytest.fixture(scope="session")
def opened() -> Iterator[tuple[QueueServer, Any]]:
    with serving() as server, client(server) as api:
        api.environment_open()
        api.wait_for_idle(timeout=60)
        assert api.status()["worker_environment_exists"], server.log()
        yield server, api


def ended(api: Any) -> bool:
    """Whether the manager is idle; if not, take the next step towards it, by its present state."""
    state = api.status(reload=True)["manager_state"]
    with suppress(api.RequestFailedError):  # the state has just changed
        if state == "executing_queue":
            api.re_pause("immediate")
        elif state == "paused":
            api.re_abort()
    return state == "idle"


@pytest.fixture
def api(opened: tuple[QueueServer, Any]) -> Iterator[Any]:
    """The queue server's own client; the manager is idle, without queue and history."""
    _, api = opened
    yield api
    wait_until(lambda: ended(api))
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
        if controls:  # one agent at a time
            controls[-1].close()
        controls.append(QueueServerControl(server.settings(**settings)))
        return controls[-1]

    yield make
    for control in controls:
        control.close()


@pytest.fixture
def control(make_control: Callable[..., QueueServerControl], server: QueueServer) -> QueueServerControl:
    return make_control(server)
