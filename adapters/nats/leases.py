"""Assigns partitions to agents by leases in a key-value bucket of JetStream."""

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
    """The partitions of a group that one agent holds. For use on one event loop.

    An agent announces itself, and holds a partition, by a key that the server deletes ``lease_s`` after its last
    renewal. Agents that join take partitions that others give up, so that each has its share.

    Parameters
    ----------
    jetstream : JetStreamContext
    group : name under which the agents share the partitions
    agent : name of this agent
    partitions : number of partitions
    lease_s : time after which the partitions of a killed agent go to others, s
    """

    def __init__(
        self, jetstream: "JetStreamContext", group: str, agent: str, partitions: int, lease_s: float
    ) -> None:
        self._jetstream, self._partitions = jetstream, partitions
        self._group, self._agent = group, agent
        self.lease_s = lease_s
        """Time for which the server keeps a lease, s; the first agent of the group sets it."""
        self._owners: KeyValue
        self._places: KeyValue
        self.held: dict[int, int] = {}
        """Revision of the key of each held partition."""
        self._written: dict[int, int] = {}
        """Revision of the place of each held partition."""
        self._renewed_at = 0.0

    async def open(self) -> None:
        """Create the buckets if they are missing."""
        self._owners = await self._bucket(f"{self._group}-owners", self.lease_s)
        self.lease_s = (await self._owners.status()).ttl or self.lease_s
        self._places = await self._bucket(f"{self._group}-places", None)

    async def _bucket(self, name: str, ttl: float | None) -> "KeyValue":
        import nats.js.errors

        with suppress(nats.js.errors.BucketNotFoundError):
            return await self._jetstream.key_value(name)
        with suppress(nats.js.errors.APIError):  # another agent created it just now
            return await self._jetstream.create_key_value(bucket=name, ttl=ttl)
        return await self._jetstream.key_value(name)

    async def renew(self, busy: Collection[int]) -> tuple[set[int], set[int], set[int]]:
        """Renew the leases, and return how they should change.

        Parameters
        ----------
        busy : partitions with runs in progress, which are given up last

        Returns
        -------
        lost, surplus, free : sets of int
            Partitions that another agent may hold, that this agent should give up, and that it may claim.
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
        """Return whether the leases may have ended, because they were not renewed in time."""
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
        """Return the place at which the previous agent ended; None if there was none."""
        import nats.js.errors

        try:
            entry = await self._places.get(f"partition.{partition}")
        except nats.js.errors.KeyNotFoundError:
            self._written[partition] = 0
            return None
        self._written[partition] = entry.revision or 0
        return json.loads(entry.value or b"null")

    async def write_place(self, partition: int, state: Mapping[str, Any]) -> bool:
        """Write the place for the next agent; return False if another agent has written meanwhile."""
        import nats.js.errors

        try:
            key, last = f"partition.{partition}", self._written[partition]
            self._written[partition] = await self._places.update(key, json.dumps(state).encode(), last=last)
        except nats.js.errors.KeyWrongLastSequenceError:
            return False
        return True

    async def give_up(self, partition: int) -> None:
        """Release a partition to other agents."""
        import nats.js.errors

        revision = self.held.pop(partition, None)
        if revision is not None:
            with suppress(nats.js.errors.APIError):  # it has already ended
                await self._owners.delete(f"partition.{partition}", last=revision)

    async def leave(self) -> None:
        """Give up all partitions, and the name."""
        await together(map(self.give_up, list(self.held)))
        await self._owners.delete(f"agent.{self._agent}")
