"""Who may publish to the agent and read from it under CURVE, and that nobody adds to another's run."""

import queue
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
from deadline import wait_until
from hypothesis import given
from hypothesis import strategies as st
from logs import capture_logs

from xas_agent.adapters.zmq import ZMQEndpoint, ZMQSink, ZMQSource, guard
from xas_agent.adapters.zmq.keys import make_keys, revoke
from xas_agent.adapters.zmq.owners import Owners


@pytest.fixture
def keys(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "_REREAD_AFTER_S", 0.0)
    folder = tmp_path / "keys"
    for name in ("beamline", "other"):
        make_keys(folder, name, client=True)
    for name in ("server", "stranger"):
        make_keys(folder, name, client=False)
    return folder


def bound(keys) -> ZMQEndpoint:
    curve = {"curve_secret_key": keys / "server.key_secret", "curve_client_keys": keys / "clients"}
    return ZMQEndpoint(address="127.0.0.1:0", bind=True, **curve)


def client(address: str, keys, name: str) -> ZMQEndpoint:
    curve = {"curve_secret_key": keys / f"{name}.key_secret", "curve_server_key": keys / "server.key"}
    return ZMQEndpoint(address=address, connect_timeout_s=5, **curve)


@contextmanager
def reading(source: ZMQSource) -> Iterator["queue.Queue[tuple[str, dict[str, Any]]]"]:
    """Read a source on a thread of its own."""
    received: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
    thread = threading.Thread(target=lambda: [received.put(document) for document in source])
    thread.start()
    try:
        yield received
    finally:
        source.close()
        thread.join(10)


@pytest.fixture
def two(keys):
    """A source, what it receives, and two permitted publishers."""
    source = ZMQSource(bound(keys))
    source.connect()
    with reading(source) as received, ExitStack() as stack:
        sinks = [
            stack.enter_context(closing(ZMQSink(client(source.address, keys, n)))) for n in ("beamline", "other")
        ]
        for sink in sinks:
            sink.connect()
        yield source, received, *sinks


def test_a_run_grows_only_by_the_client_that_opened_it(two):
    source, received, beamline, other = two
    with capture_logs() as lines:
        beamline("start", {"uid": "run"})
        beamline("descriptor", {"uid": "stream", "run_start": "run"})
        assert [received.get(timeout=5)[1]["uid"] for _ in range(2)] == ["run", "stream"]
        for name, doc in [
            ("start", {"uid": "run", "xas_agent": True}),
            ("descriptor", {"uid": "more", "run_start": "run"}),
            ("event", {"uid": "e", "descriptor": "stream", "seq_num": 2}),
            ("event_page", {"uid": ["e"], "descriptor": "stream"}),
            ("bulk_events", {"stream": [{"seq_num": 2}]}),
            ("resource", {"uid": "file", "run_start": "run"}),
            ("stream_datum", {"uid": "d", "descriptor": "stream", "stream_resource": "mine"}),
            ("stop", {"uid": "s", "run_start": "run"}),
        ]:
            other(name, doc)
        other("start", {"uid": "own"})
        assert received.get(timeout=5) == ("start", {"uid": "own"})
        beamline("stop", {"uid": "s", "run_start": "run"})
        assert received.get(timeout=5) == ("stop", {"uid": "s", "run_start": "run"})
    assert source.malformed_by_reason == {"another client's run": 8}
    assert sum(line["event"] == "client refused" for line in lines) == 1


def test_a_revoked_publisher_is_out_at_once(two, keys):
    _, received, beamline, other = two
    with capture_logs() as lines:
        beamline("start", {"uid": "run"})
        assert received.get(timeout=5)[1] == {"uid": "run"}
        revoke(keys, "beamline")
        for n in range(3):
            beamline("start", {"uid": str(n)})
        wait_until(lambda: any(line["event"] == "client refused" for line in lines))
        other("start", {"uid": "last"})
        assert received.get(timeout=5)[1] == {"uid": "last"}
    assert sum(line["event"] == "client refused" for line in lines) == 1


def test_a_revoked_reader_hears_no_more_and_the_others_lose_nothing(keys):
    with closing(ZMQSink(bound(keys))) as sink, ExitStack() as stack:
        sink.connect()
        sources = [ZMQSource(client(sink.address, keys, name)) for name in ("beamline", "other")]
        for source in sources:
            source.connect()
        out, kept = (stack.enter_context(reading(source)) for source in sources)
        wait_until(lambda: sink.wait_for_subscriber(0.1) and len(sink._subscribers()) == 2)
        sink("start", {"uid": 0})
        assert out.get(timeout=5) == kept.get(timeout=5) == ("start", {"uid": 0})
        revoke(keys, "beamline")
        with capture_logs() as lines:
            for n in range(1, 20):
                sink("start", {"uid": n})
            assert [kept.get(timeout=5)[1]["uid"] for _ in range(19)] == list(range(1, 20))
            wait_until(lambda: any(line["event"] == "client refused" for line in lines))
        assert out.empty()
    assert sum(line["event"] == "client refused" for line in lines) == 1


uids = st.sampled_from("abcd")
names = st.sampled_from(["start", "descriptor", "event", "resource", "datum", "stop"])
docs = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("uid", "run_start", "descriptor", "resource", "datum_id"), uids)
)


@given(st.lists(st.tuples(st.sampled_from("xy"), names, docs), max_size=12))
def test_no_uid_ever_has_two_owners(sent):
    owners, owner_of = Owners(), {}
    for who, name, doc in sent:
        opened = {"uid"} if name in ("start", "descriptor", "resource") else set()
        named = {v for k, v in doc.items() if k in opened | {"run_start", "descriptor", "resource", "datum_id"}}
        admitted = owners.admits(who, name, doc)
        assert admitted == all(owner_of.get(uid, who) == who for uid in named)
        if admitted:
            owner_of |= dict.fromkeys(named, who)


def test_nobody_can_make_anothers_run_forgotten():
    owners = Owners()
    assert owners.admits("x", "start", {"uid": "run"})
    for n in range(20_000):
        assert owners.admits("y", "start", {"uid": str(n)})
    assert not owners.admits("y", "stop", {"run_start": "run"})


def test_a_run_is_not_forgotten_over_its_own_datums_and_events():
    owners = Owners()
    for name, doc in (
        ("start", {"uid": "run"}),
        ("descriptor", {"uid": "stream", "run_start": "run"}),
        ("resource", {"uid": "file", "run_start": "run"}),
    ):
        assert owners.admits("x", name, doc)
    for n in range(20_000):
        assert owners.admits("x", "datum", {"resource": "file", "datum_id": f"file/{n}"})
    for n in range(20_000):
        assert owners.admits("x", "resource", {"uid": f"file{n}"})
        assert owners.admits("x", "event", {"descriptor": "stream"})
    assert not owners.admits("y", "event", {"descriptor": "stream"})
    assert not owners.admits("y", "stop", {"run_start": "run"})


def test_a_datum_is_its_clients_in_whatever_document_it_comes():
    owners = Owners()
    assert owners.admits("x", "bulk_datum", {"resource": "file", "datum_ids": ["file/0", "file/1"]})
    for name, doc in (
        ("datum", {"datum_id": "file/1"}),
        ("datum_page", {"datum_id": ["file/2", "file/1"]}),
        ("bulk_datum", {"datum_ids": ["file/1"]}),
        ("event", {"descriptor": "file/1"}),
    ):
        assert not owners.admits("y", name, doc)
