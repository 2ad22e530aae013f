"""Which agent reads which partition: leases in a key-value bucket of JetStream."""

import asyncio
import json
import time
from collections.abc import Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ...agent.types import get_logger

if TYPE_CHECKING:
    from nats.js.client import JetStreamContext
    from nats.js.kv import KeyValue

log = get_logger()

T = TypeVar("T")


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Do works at the same time and return their results; once all have ended, raise the first error.

    A renewal that waited for one partition after the other would take longer than a lease over a slow connection.
    """
    done = await asyncio.gather(*works, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return cast(list[T], done)


class Leases:
    """The partitions that one agent holds of those of its group. To be used on one event loop.

    An agent announces itself, and holds a partition, by a key that the server deletes ``lease_s`` after it was last
    renewed. Agents that join take the partitions that others give up, so that each has its share.

    Parameters
    ----------
    jetstream : JetStreamContext
    group : name of what the agents share
    agent : name of this one
    partitions : number of partitions
    lease_s : time after which the partitions of an agent that was killed go to others, s
    """

    def __init__(
        self, jetstream: "JetStreamContext", group: str, agent: str, partitions: int, lease_s: float
    ) -> None:
        self._jetstream, self._partitions = jetstream, partitions
        self._group, self._agent = group, agent
        self.lease_s = lease_s
        """Time for which the server keeps a lease, s; the first agent of the group has set it."""
        self._owners: KeyValue
        self._places: KeyValue
        self.held: dict[int, int] = {}
        """Revision of the key of each partition held."""
        self._written: dict[int, int] = {}
        """Revision of the place of each partition held."""
        self._renewed_at = 0.0

    async def open(self) -> None:
        """Make the buckets unless they exist."""
        self._owners = await self._bucket(f"{self._group}-owners", self.lease_s)
        self.lease_s = (await self._owners.status()).ttl or self.lease_s
        self._places = await self._bucket(f"{self._group}-places", None)

    async def _bucket(self, name: str, ttl: float | None) -> "KeyValue":
        import nats.js.errors

        with suppress(nats.js.errors.BucketNotFoundError):
            return await self._jetstream.key_value(name)
        with suppress(nats.js.errors.APIError):  # another agent has made it just now
            return await self._jetstream.create_key_value(bucket=name, ttl=ttl)
        return await self._jetstream.key_value(name)

    async def renew(self, busy: Collection[int]) -> tuple[set[int], set[int], set[int]]:
        """Renew what is held, and say how it should change.

        Parameters
        ----------
        busy : partitions with runs in progress, which are given up last

        Returns
        -------
        lost, surplus, free : sets of int
            Partitions that another agent may hold, that this one should give up, and that it may claim.
        """
        import nats.js.errors

        await self._owners.put(f"agent.{self._agent}", b"")
        held = list(self.held)
        kept = await together(map(self._keep, held))
        lost = {partition for partition, mine in zip(held, kept, strict=True) if not mine}
        self._renewed_at = time.monotonic()
        try:
            keys = await self._owners.keys()
        except nats.js.errors.NoKeysError:
            keys = []
        agents = sum(key.startswith("agent.") for key in keys)
        taken = {int(key.removeprefix("partition.")) for key in keys if key.startswith("partition.")}
        share = -(-self._partitions // max(agents, 1))
        by_cost = sorted(self.held, key=lambda partition: partition in busy)
        surplus = set(by_cost[: max(0, len(self.held) - share)])
        free = sorted(set(range(self._partitions)) - taken)[: max(0, share - len(self.held))]
        return lost, surplus, set(free)

    async def _keep(self, partition: int) -> bool:
        """Renew the lease of a partition; return False if it has ended."""
        import nats.js.errors

        key, revision = f"partition.{partition}", self.held[partition]
        try:
            self.held[partition] = await self._owners.update(key, self._agent.encode(), last=revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            self.held.pop(partition, None)
            return False
        return True

    @property
    def expired(self) -> bool:
        """Whether the leases may have ended, since they could not be renewed in time."""
        return time.monotonic() - self._renewed_at > self.lease_s

    async def claim(self, partition: int) -> bool:
        """Try to become the reader of a partition; return whether it succeeded."""
        import nats.js.errors

        try:
            key = f"partition.{partition}"
            self.held[partition] = await self._owners.create(key, self._agent.encode())
        except nats.js.errors.KeyWrongLastSequenceError:
            return False
        return True

    async def place(self, partition: int) -> dict[str, Any] | None:
        """Return where the agent before has ended; None if there was none."""
        import nats.js.errors

        try:
            entry = await self._places.get(f"partition.{partition}")
        except nats.js.errors.KeyNotFoundError:
            self._written[partition] = 0
            return None
        self._written[partition] = entry.revision or 0
        return json.loads(entry.value or b"null")

    async def write_place(self, partition: int, state: Mapping[str, Any]) -> bool:
        """Write where another agent would go on; return False if another one has written meanwhile."""
        import nats.js.errors

        try:
            key, last = f"partition.{partition}", self._written[partition]
            self._written[partition] = await self._places.update(key, json.dumps(state).encode(), last=last)
        except nats.js.errors.KeyWrongLastSequenceError:
            return False
        return True

    async def give_up(self, partition: int) -> None:
        """Let another agent have a partition."""
        import nats.js.errors

        revision = self.held.pop(partition, None)
        if revision is not None:
            with suppress(nats.js.errors.APIError):  # it has ended meanwhile
                await self._owners.delete(f"partition.{partition}", last=revision)

    async def leave(self) -> None:
        """Give up all partitions, and the name."""
        await together(map(self.give_up, list(self.held)))
        await self._owners.delete(f"agent.{self._agent}")
