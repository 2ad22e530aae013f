"""The events that a dashboard sends to its clients."""

import asyncio
from collections.abc import AsyncIterator

from xas_agent.app.view import stream as module
from xas_agent.app.view.stream import EventStream


async def take(client: AsyncIterator[bytes], count: int) -> list[bytes]:
    return [await anext(client) for _ in range(count)]


def number_of(message: bytes) -> int:
    return int(message.partition(b"\n")[0].removeprefix(b"id: "))


def test_each_event_is_one_object_for_all_clients():
    async def check() -> None:
        stream = EventStream()
        clients = [stream.client(None) for _ in range(3)]
        for client in clients:
            first, hello = await take(client, 2)
            assert first.startswith(b"retry")
            assert b"event: hello" in hello
        waiting = [asyncio.ensure_future(anext(client)) for client in clients]
        await asyncio.sleep(0)
        stream.publish("frame", {"OS": float("nan")})
        sent = await asyncio.gather(*waiting)
        assert sent[0] is sent[1] is sent[2]
        assert sent[0].endswith(b'event: frame\ndata: {"OS":null}\n\n')

    asyncio.run(check())


def test_a_client_that_comes_again_gets_what_it_missed():
    async def check() -> None:
        stream = EventStream()
        _, hello = await take(stream.client(None), 2)
        for n in range(3):
            stream.publish("frame", {"n": n})
        last = number_of(hello) + 1
        _, *missed = await take(stream.client(last), 3)
        assert [number_of(message) for message in missed] == [last + 1, last + 2]
        assert b'{"n":1}' in missed[0]

    asyncio.run(check())


def test_a_client_that_missed_too_much_must_load_the_history_again(monkeypatch):
    monkeypatch.setattr(module, "_KEPT", 2)

    async def check() -> None:
        stream = EventStream()
        _, hello = await take(stream.client(None), 2)
        for n in range(9):
            stream.publish("frame", {"n": n})
        for after in (number_of(hello), 5, number_of(hello) + 10**6):
            _, message = await take(stream.client(after), 2)
            assert b"event: reset" in message

    asyncio.run(check())


def test_a_slow_client_is_dropped_and_delays_nobody(monkeypatch):
    monkeypatch.setattr(module, "_WAITING", 5)

    async def check() -> None:
        stream = EventStream()
        slow = stream.client(None)
        await take(slow, 2)
        for n in range(6):
            stream.publish("frame", {"n": n})
        assert not stream.watched
        assert [message async for message in slow] == []

    asyncio.run(check())


def test_a_quiet_stream_sends_a_heartbeat(monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.01)

    async def check() -> None:
        client = EventStream().client(None)
        assert (await take(client, 3))[-1] == b": still here\n\n"

    asyncio.run(check())


def test_the_end_of_the_server_ends_its_clients():
    async def check() -> None:
        stream = EventStream()
        client = stream.client(None)
        await take(client, 2)
        stream.close()
        assert [message async for message in client] == []
        assert [message async for message in stream.client(None)] == []

    asyncio.run(check())
