"""Yields the messages of a pull consumer as they arrive."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .endpoint import Link

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_BATCH = 200
"""Number of messages per request; the next request is sent before all of them have arrived."""
_EXPIRES_S = 30.0
"""Time after which a request ends, s."""
_POLL_S = 0.1


class Pull:
    """Requests to a consumer, one of which always waits on the server, so that a message arrives at once.

    nats-py's ``fetch`` would hold the first message back until its batch is full or its time is over.

    Parameters
    ----------
    link : Link
    stream, consumer : names of the stream and the consumer
    inbox : subject to which the consumer sends
    """

    def __init__(self, link: Link, stream: str, consumer: str, inbox: str) -> None:
        self._link, self._inbox = link, inbox
        self._came: asyncio.Queue[Msg] = asyncio.Queue()
        self._connection = link.connections
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._left = 0
        """Number of requested messages that have not arrived."""

    async def messages(self, over: Callable[[], bool]) -> AsyncIterator["Msg"]:
        """Yield messages until ``over`` returns True.

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
                if status == "409":  # too many documents wait for acknowledgement
                    await asyncio.sleep(_POLL_S)
                continue
            number += 1
            self._left -= 1
            if (found := message.metadata.sequence.consumer) != number:
                raise LookupError(f"message {found} instead of {number}")
            yield message

    async def take(self, message: "Msg") -> None:
        """Take a message that arrived in the inbox."""
        self._came.put_nowait(message)

    async def _ask(self) -> None:
        if self._left <= _BATCH // 2:
            self._left += _BATCH
            request = {"batch": _BATCH, "expires": int(_EXPIRES_S * 1e9)}
            await self._link.client.publish(self._subject, json.dumps(request).encode(), reply=self._inbox)

    def _heed(self, status: str, description: str) -> None:
        """Send a new request after one has ended; raise LookupError if the consumer is gone."""
        if status == "503" or (status == "409" and "deleted" in description.lower()):
            raise LookupError(f"the consumer is gone ({status} {description})")
        if status != "100":  # not a heartbeat
            self._left = 0


@asynccontextmanager
async def closing_pull(link: Link, stream: str, consumer: str) -> AsyncIterator[Pull]:
    """Open a pull of a consumer; end its subscription at the end of the block."""
    inbox = link.client.new_inbox()
    pull = Pull(link, stream, consumer, inbox)
    subscription = await link.client.subscribe(inbox, cb=pull.take)
    try:
        yield pull
    finally:
        if link.client.is_connected:
            await subscription.unsubscribe()
