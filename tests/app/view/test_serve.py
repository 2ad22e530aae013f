"""The end of the dashboard's process."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from xas_agent.app.view.address import listen
from xas_agent.app.view.serve import _Server
from xas_agent.app.view.sessions import Sessions


@pytest.mark.parametrize("when", ["begins", "ends"])
def test_signals_end_it_without_a_traceback(when: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also twice, as a terminal and a shell send them."""

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if when == "begins":
            twice()
        yield
        twice()

    config = uvicorn.Config(FastAPI(lifespan=lifespan), log_config=None, ws="none")
    server = _Server(config, Sessions([tmp_path]))
    server.should_exit = when == "ends"
    with listen("127.0.0.1", 0) as listening:
        if when == "begins":
            with pytest.raises(KeyboardInterrupt):
                server.run([listening])
        else:
            server.run([listening])
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
