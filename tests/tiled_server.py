"""``tiled serve catalog`` as a process: a stock server without plugins or configuration."""

import json
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

KEY = "xasagenttest"


@contextmanager
def serving(*args: object, port: int = 0) -> Iterator[str]:
    """Serve a catalogue with these arguments; yield ``HOST:PORT``."""
    for module in ("bluesky_tiled_plugins", "tiled.server", "tiled.catalog", "h5py", "uvicorn"):
        pytest.importorskip(module, reason="no Tiled server: pip install 'xas-agent[tiled]' 'tiled[server]'")
    command = [sys.executable, "-m", "tiled", "serve", "catalog", *map(str, args), "--api-key", KEY]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        said = ""
        while not (found := re.search(r"running on \S*http://(127\.0\.0\.1:[1-9]\d*)", said)):
            line = lines.get(timeout=60)
            assert line, said
            said += line
        yield found[1]
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # uvicorn waits for requests that are still open
            process.kill()
            process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def empty_catalogue() -> Iterator[Any]:
    """Yield Tiled's client of an empty catalogue; test modules make it a fixture."""
    with serving("--temp") as address:
        from tiled.client import from_uri

        client = from_uri(f"http://{address}", api_key=KEY)
        yield client
        client.context.http_client.close()


def write(client: Any, documents: Any, batch_size: int = 10_000) -> Any:
    """Write documents to a catalogue with bluesky's TiledWriter; return the writer."""
    from bluesky_tiled_plugins import TiledWriter

    writer = TiledWriter(client, batch_size=batch_size)
    for name, doc in documents:
        writer(name, json.loads(json.dumps(doc, default=lambda v: v.tolist())))
    return writer
