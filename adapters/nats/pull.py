"""The messages of a pull consumer, as they come."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .endpoint import Link

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_BATCH = 200
"""Number of messages that are asked for at once; the next request goes out before they have all come."""
_EXPIRES_S = 30.0
"""Time after which a request ends, s."""
_POLL_S = 0.1


class Pull:
    """Requests to a consumer, one of which always waits on the server, so that a message comes at once.

    nats-py's ``fetch`` holds the first message back until its batch is full or its time is over.

    Parameters
    ----------
    link : Link
    stream, consumer : their names
    inbox : subject to which the consumer sends
    """

    def __init__(self, link: Link, stream: str, consumer: str, inbox: str) -> None:
        self._link, self._inbox = link, inbox
        self._came: asyncio.Queue[Msg] = asyncio.Queue()
        self._connection = link.connections
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._left = 0
        """Number of messages that are asked for and have not come."""

    async def messages(self, over: Callable[[], bool]) -> AsyncIterator["Msg"]:
        """Yield messages until ``over``.

        Raises
        ------
        LookupError
            The consumer was deleted, or messages were lost with a connection.
        """
        number = 0
        while not over():
            if self._link.connections != self._connection:
                raise LookupError("the connection was lost")
            await self._ask()
            try:
                came = self._came
                message = await asyncio.wait_for(came.get(), _POLL_S) if came.empty() else came.get_nowait()
            except TimeoutError:
                continue
            if status := (message.headers or {}).get("Status"):
                self._heed(status, (message.headers or {}).get("Description", ""))
                if status == "409":  # too many documents wait for their acknowledgement
                    await asyncio.sleep(_POLL_S)
                continue
            number += 1
            self._left -= 1
            if (found := message.metadata.sequence.consumer) != number:
                raise LookupError(f"message {found} instead of {number}")
            yield message

    async def take(self, message: "Msg") -> None:
        """Take a message that came to the inbox."""
        self._came.put_nowait(message)

    async def _ask(self) -> None:
        if self._left <= _BATCH // 2:
            self._left += _BATCH
            request = {"batch": _BATCH, "expires": int(_EXPIRES_S * 1e9)}
            await self._link.client.publish(self._subject, json.dumps(request).encode(), reply=self._inbox)

    def _heed(self, status: str, description: str) -> None:
        """Ask anew after a request has ended; raise LookupError if the consumer is gone."""
        if status == "503" or (status == "409" and "deleted" in description.lower()):
            raise LookupError(f"the consumer is gone ({status} {description})")
        if status != "100":  # no heartbeat
            self._left = 0


@asynccontextmanager
async def closing_pull(link: Link, stream: str, consumer: str) -> AsyncIterator[Pull]:
    """Open a pull of a consumer, and end its subscription at the end of the block."""
    inbox = link.client.new_inbox()
    pull = Pull(link, stream, consumer, inbox)
    subscription = await link.client.subscribe(inbox, cb=pull.take)
    try:
        yield pull
    finally:
        if link.client.is_connected:
            await subscription.unsubscribe()
