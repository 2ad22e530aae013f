"""Server-sent events: each is encoded once for all clients, and slow clients are disconnected."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from pydantic_core import to_json

HEARTBEAT_S = 10.0
"""Time without an event after which a client receives a comment, so that proxies keep the connection, s."""
_KEPT = 2000
"""Number of events to keep for clients that reconnect."""
_WAITING = 500
"""Largest number of events that wait for one client; a slower client is disconnected and reconnects."""
_END = b""


def encode(value: Any) -> bytes:
    """Return JSON; NaN and infinities become null.

    >>> encode({"OS": float("nan")})
    b'{"OS":null}'
    """
    return to_json(value, inf_nan_mode="null", fallback=str)


class EventStream:
    """The events of one session; all methods must be called in the event loop."""

    def __init__(self) -> None:
        # It rises over restarts of the server, so that a client that reconnects never seems to have missed nothing.
        self._newest = int(time.time() * 1e3)
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=_KEPT)
        self._clients: set[asyncio.Queue[bytes]] = set()
        self._closed = False

    @property
    def watched(self) -> bool:
        """Whether any client is connected."""
        return bool(self._clients)

    def publish(self, name: str, data: Any) -> None:
        """Send an event to all clients."""
        self._newest += 1
        message = b"id: %d\nevent: %s\ndata: %s\n\n" % (self._newest, name.encode(), encode(data))
        self._kept.append((self._newest, message))
        for queue in list(self._clients):
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:
                self._drop(queue)

    async def client(self, after: int | None) -> AsyncIterator[bytes]:
        """Yield future events as bytes and, for a client that reconnects, first those after number ``after``.

        If some of these are no longer kept, the event ``reset`` tells the client to request the history again.
        """
        queue: asyncio.Queue[bytes] = asyncio.Queue(_WAITING)
        missed: list[bytes] = []
        if after is not None and after != self._newest:
            oldest = self._kept[0][0] if self._kept else self._newest + 1
            if oldest - 1 <= after < self._newest:
                missed = [message for number, message in self._kept if number > after]
            else:
                missed = [b"id: %d\nevent: reset\ndata: {}\n\n" % self._newest]
        elif after is None:
            missed = [b"id: %d\nevent: hello\ndata: {}\n\n" % self._newest]
        if self._closed:
            return
        self._clients.add(queue)
        try:
            yield b"retry: 2000\n\n"
            for message in missed:
                yield message
            while True:
                try:
                    message = await asyncio.wait_for(queue.get(), HEARTBEAT_S)
                except TimeoutError:
                    message = b": still here\n\n"
                if message == _END:
                    return
                yield message
        finally:
            self._clients.discard(queue)

    def close(self) -> None:
        """Disconnect all clients."""
        self._closed = True
        for queue in list(self._clients):
            self._drop(queue)

    def _drop(self, queue: "asyncio.Queue[bytes]") -> None:
        self._clients.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(_END)
