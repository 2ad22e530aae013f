"""Against bluesky's own Publisher, Proxy and RemoteDispatcher, each in a process of its own."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice

import event_model
import msgpack
import numpy as np
import pytest
import zmq
import zmq.auth
from deadline import wait_until
from logs import capture_logs
from pydantic import ValidationError
from valid import check_document

from xas_agent.adapters.errors import EndpointUnreachable
from xas_agent.adapters.zmq import socket as zmq_socket
from xas_agent.adapters.zmq.documents import ZMQEndpoint, ZMQSink, ZMQSource

PROXY = """
from bluesky.callbacks.zmq import Proxy
proxy = Proxy("127.0.0.1", "127.0.0.1")
print(proxy.in_port, proxy.out_port, flush=True)
proxy.start()
"""

# Knocks until it is told that somebody listens, then sends two runs under two prefixes.
PUBLISHER = """
import functools, pickle, sys, threading, msgpack, msgpack_numpy, numpy as np
from bluesky.callbacks.zmq import Publisher
address, serializer = sys.argv[1:]
pack = functools.partial(msgpack.packb, use_bin_type=True, default=msgpack_numpy.encode)
publishers = {p: Publisher(address, prefix=p, serializer=pack if serializer == "msgpack" else pickle.dumps)
              for p in (b"bmm", b"iss")}
heard = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), heard.set()), daemon=True).start()
while not heard.wait(0.02):
    for prefix, p in publishers.items(): p("start", {"uid": "knock", "from": prefix.decode()})
for prefix, publish in publishers.items():
    who = prefix.decode()
    publish("start", {"uid": who, "time": 1.5, "scan": (1, 2), "E0": np.float64(8333.0)})
    for n in range(1, 4):
        publish("event", {"uid": f"{who}-{n}", "seq_num": n, "data": {"mu": np.arange(5) * 0.1 * n}})
    publish("stop", {"uid": who + "-stop", "run_start": who})
    publish.close()
"""

DISPATCHER = """
import functools, json, sys, msgpack, msgpack_numpy, event_model
from bluesky.callbacks.zmq import RemoteDispatcher
kind, address, prefix = sys.argv[1:]
unpack = {"msgpack": functools.partial(msgpack.unpackb, raw=False, object_hook=msgpack_numpy.decode),
          "json": json.loads}[kind]
d = RemoteDispatcher(address, prefix=prefix.encode(), deserializer=unpack)
d.subscribe(lambda name, doc: print(json.dumps([name, doc], cls=event_model.NumpyEncoder), flush=True))
d.start()
"""


@contextmanager
def running(script: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", script, *args]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    return iter(process.stdout.readline, "")


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[str, str]]:
    """In and out address of a bluesky Proxy."""
    with running(PROXY) as process:
        inward, outward = next(lines(process)).split()
        yield inward, outward


@pytest.fixture
def dead_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


pack = msgpack.Packer().pack


def bound_sink(**settings) -> ZMQSink:
    sink = ZMQSink(ZMQEndpoint(address="127.0.0.1:0", bind=True, **settings))
    sink.connect()
    return sink


@contextmanager
def raw_publisher() -> Iterator[tuple[zmq.Socket, str]]:
    """An XPUB that can send any bytes, and its address."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as xpub:
        xpub.linger = 0
        port = xpub.bind_to_random_port("tcp://127.0.0.1")
        yield xpub, f"zmq://127.0.0.1:{port}"


def published_by_bluesky(source: ZMQSource, process: subprocess.Popen[str], publishers: list[str]) -> list:
    """The documents of ``publishers``, once all of them were heard knocking."""
    documents, heard = [], set()
    for name, doc in source:
        if doc["uid"] != "knock":
            documents.append((name, doc))
        elif not heard >= set(publishers):
            heard.add(doc["from"])
            if heard >= set(publishers):
                print("heard", file=process.stdin, flush=True)
        if len(documents) == 5 * len(publishers):
            break
    return documents


@pytest.mark.parametrize(("prefix", "expected"), [("", ["bmm", "iss"]), ("iss", ["iss"])])
def test_source_reads_bluesky_publishers_through_a_proxy(proxy, prefix, expected):
    with (
        closing(ZMQSource(ZMQEndpoint(address=proxy[1], prefix=prefix))) as source,
        capture_logs() as logs,
        running(PUBLISHER, proxy[0], "msgpack") as publisher,
    ):
        documents = published_by_bluesky(source, publisher, expected)
    assert [log["event"] for log in logs] == ["listening"]
    assert source.malformed == 0
    by_run = {who: [(n, d) for n, d in documents if d["uid"].startswith(who)] for who in expected}
    for who in expected:
        names, docs = zip(*by_run[who], strict=True)
        assert names == ("start", "event", "event", "event", "stop")
        assert docs[0] == {"uid": who, "time": 1.5, "scan": [1, 2], "E0": 8333.0}
        for n, event in enumerate(docs[1:4], 1):
            np.testing.assert_array_equal(event["data"]["mu"], np.arange(5) * 0.1 * n)


def test_pickle_from_a_bluesky_publisher_is_refused_with_one_warning(proxy):
    source = ZMQSource(ZMQEndpoint(address=proxy[1]))
    with running(PUBLISHER, proxy[0], "pickle"), closing(source), capture_logs() as logs:
        reader = threading.Thread(target=lambda: list(source))
        reader.start()
        wait_until(lambda: source.malformed >= 4)
        source.close()
        reader.join()
    warnings = [log for log in logs if log["log_level"] == "warning"]
    assert len(warnings) == 1
    assert "start it with serializer=msgpack" in warnings[0]["detail"]
    assert source.malformed_by_reason["pickle refused"] == source.malformed


def test_pickle_is_taken_where_the_endpoint_allows_it(proxy):
    source = ZMQSource(ZMQEndpoint(address=proxy[1], prefix="bmm", allow_pickle=True))
    with running(PUBLISHER, proxy[0], "pickle") as publisher, closing(source):
        documents = published_by_bluesky(source, publisher, ["bmm"])
    assert documents[0][1]["scan"] == (1, 2)


@pytest.mark.parametrize("serializer", ["msgpack", "json"])
def test_sink_reaches_a_bluesky_dispatcher_through_a_proxy(proxy, serializer):
    run = event_model.compose_run()
    keys = {
        "mu": {"source": "", "dtype": "array", "shape": [3]},
        "n": {"source": "", "dtype": "integer", "shape": []},
    }
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    mu = np.array([0.1, 1 / 3, 1e-300])
    event = stream.compose_event(data={"mu": mu, "n": np.int64(3)}, timestamps={"mu": 1.0, "n": 1.0})
    with (
        running(DISPATCHER, serializer, proxy[1], "agent") as dispatcher,
        closing(ZMQSink(ZMQEndpoint(address=proxy[0], prefix="agent", serializer=serializer))) as sink,
    ):
        sink.connect()
        heard = threading.Event()
        first = threading.Thread(target=lambda: (next(lines(dispatcher)), heard.set()))
        first.start()
        knock = dict(run.start_doc, uid="knock")
        while not heard.wait(0.02):
            sink("start", knock)
        first.join()
        sink("start", run.start_doc)
        sink("descriptor", stream.descriptor_doc)
        sink("event", event)
        sink("stop", run.compose_stop())
        received = (json.loads(line) for line in lines(dispatcher))
        documents = [next(received)]
        while documents[-1][0] != "stop":
            documents.append(next(received))
    documents = [(name, doc) for name, doc in documents if doc["uid"] != "knock"]
    assert [name for name, _ in documents] == ["start", "descriptor", "event", "stop"]
    for name, doc in documents:
        check_document(name, doc)
    assert documents[2][1]["data"] == {"mu": mu.tolist(), "n": 3}


@pytest.mark.parametrize("first", ["sink", "source"])
def test_no_document_is_lost_between_our_own_sink_and_source(first, dead_address, monkeypatch):
    monkeypatch.setattr(zmq_socket, "_LOG_WAIT_AFTER_S", 0.0)
    sink = ZMQSink(ZMQEndpoint(address=dead_address, bind=True))
    source = ZMQSource(ZMQEndpoint(address=dead_address))
    received: list = []

    def read() -> None:
        for document in source:
            received.append(document)
            if document[0] == "stop":
                break

    def write() -> None:
        sink.connect()
        assert sink.wait_for_subscriber(10)
        for n in range(1000):
            sink("event", {"seq_num": n})
        sink("stop", {})

    sides = {"source": threading.Thread(target=read), "sink": threading.Thread(target=write)}
    with closing(sink), closing(source), capture_logs() as logs:
        for side in sorted(sides, key=lambda side: side != first):
            sides[side].start()
            wait_until(lambda: "waiting" in [log["event"] for log in logs])
        for side in sides.values():
            side.join(20)
    assert [doc.get("seq_num") for _, doc in received] == [*range(1000), None]
    assert sink.unheard == 0


def test_a_closing_sink_delivers_what_is_still_queued():
    sink = bound_sink()
    with closing(ZMQSource(ZMQEndpoint(address=sink.address))) as source:
        source.connect()
        assert sink.wait_for_subscriber(5)
        for n in range(200):
            sink("event", {"seq_num": n, "data": np.zeros(2000)})
        sink.close()
        received = (doc["seq_num"] for _, doc in source)
        assert [next(received) for _ in range(200)] == list(range(200))
    with pytest.raises(ValueError, match="closed"):
        sink("stop", {})


def test_documents_that_nobody_hears_are_counted():
    with closing(bound_sink(prefix="agent")) as sink, capture_logs() as logs:
        sink("start", {"uid": "a"})
        with closing(ZMQSource(ZMQEndpoint(address=sink.address, prefix="other"))) as elsewhere:
            elsewhere.connect()
            assert not sink.wait_for_subscriber(0.3)
            sink("event", {"uid": "b"})
    assert sink.unheard == 2
    assert [log["event"] for log in logs].count("documents sent without a subscriber are lost") == 1


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "not prefix, name and payload"),
        (b"start", "not prefix, name and payload"),
        (b" begin {}", "unknown document name"),
        (b" \xff\xfe {}", "unknown document name"),
        (b" start not msgpack", "undecodable"),
        (b" start " + pack([1, 2]), "undecodable"),
        (b" start " + b"\xc6\xff\xff\xff\xff", "undecodable"),
        (b" start " + pack({"a": "b" * 20_000}), "too large"),
    ],
)
def test_malformed_messages_are_counted_and_skipped(message, reason):
    good = b" start " + pack({"uid": "a"})
    with (
        raw_publisher() as (publisher, address),
        closing(ZMQSource(ZMQEndpoint(address=address, max_message_mb=0.01))) as source,
        capture_logs() as logs,
    ):
        source.connect()
        assert publisher.recv() == b"\x01"
        for payload in (message, message, good):
            publisher.send(payload)
        assert next(iter(source)) == ("start", {"uid": "a"})
    assert source.malformed == 2
    assert source.malformed_by_reason == {reason: 2}
    assert [log["reason"] for log in logs if log["log_level"] == "warning"] == [reason]


def test_messages_that_wait_are_read_in_order_and_none_after_close():
    documents = [("start", {"uid": "run"}), *(("event", {"seq_num": n}) for n in range(600))]
    messages = [b" " + name.encode() + b" " + pack(doc) for name, doc in documents]
    large = b" event " + pack({"data": "x" * 3 * 2**20})
    with raw_publisher() as (publisher, address), closing(ZMQSource(ZMQEndpoint(address=address))) as source:
        source.connect()
        assert publisher.recv() == b"\x01"
        for message in [*messages[:300], b"no document", large, large, *messages[300:], *messages[:50]]:
            publisher.send(message)
        received = iter(source)
        found = [next(received) for _ in range(603)]
        assert [doc for doc in found if "data" not in doc[1]] == documents
        assert [k for k, (_, doc) in enumerate(found) if "data" in doc] == [300, 301]
        assert source.malformed == 1
        next(received)
        source.close()
        assert list(received) == []


@pytest.mark.parametrize(("adapter", "peer"), [(ZMQSource, zmq.XPUB), (ZMQSink, zmq.SUB)])
@pytest.mark.parametrize("timeout_s", [0, 10])
def test_waiting_is_reported_in_the_log_once(adapter, peer, timeout_s, dead_address, monkeypatch):
    monkeypatch.setattr(zmq_socket, "_LOG_WAIT_AFTER_S", 0.2)
    side = adapter(ZMQEndpoint(address=dead_address, connect_timeout_s=timeout_s))
    with capture_logs() as logs, closing(side), zmq.Context() as context, context.socket(peer) as late:
        connecting = threading.Thread(target=side.connect)
        connecting.start()
        wait_until(lambda: logs)
        if peer == zmq.SUB:
            late.subscribe("")
        late.bind(f"tcp://{dead_address}")
        while connecting.is_alive():
            late.poll(50)
    assert all(log["timeout_s"] == round(log["timeout_s"], 1) for log in logs if log.get("timeout_s"))
    assert [(log["event"], log["log_level"], log["endpoint"]) for log in logs] == [
        ("waiting", "info", f"tcp://{dead_address}"),
        ("listening" if adapter is ZMQSource else "publishing", "info", f"tcp://{dead_address}"),
    ]


@pytest.mark.parametrize("adapter", [ZMQSource, ZMQSink])
def test_a_dead_endpoint_is_unreachable_within_its_timeout(adapter, dead_address):
    endpoint = ZMQEndpoint(address=f"zmq://{dead_address}", connect_timeout_s=0.2)
    with closing(adapter(endpoint)) as side, pytest.raises(EndpointUnreachable, match=dead_address):
        side.connect()


def test_the_wrong_port_of_a_proxy_is_unreachable(proxy):
    inward, outward = proxy
    with pytest.raises(EndpointUnreachable, match="no handshake with a ZMQ peer"):
        ZMQSource(ZMQEndpoint(address=inward, connect_timeout_s=0.3)).connect()
    with pytest.raises(EndpointUnreachable, match="in-port"):
        ZMQSink(ZMQEndpoint(address=outward, connect_timeout_s=0.3)).connect()


def test_an_address_in_use_is_unreachable():
    with closing(bound_sink()) as sink:
        taken = ZMQEndpoint(address=sink.address, bind=True)
        for adapter in (ZMQSource, ZMQSink):
            with pytest.raises(EndpointUnreachable, match="in use"):
                adapter(taken).connect()


@pytest.mark.parametrize("connected", [True, False], ids=["idle", "still connecting"])
def test_close_from_another_thread_ends_the_iteration(connected, dead_address):
    with closing(bound_sink()) as sink:
        address = sink.address if connected else dead_address
        source = ZMQSource(ZMQEndpoint(address=address, connect_timeout_s=0))
        received: list = []
        reader = threading.Thread(target=lambda: received.extend(source))
        reader.start()
        if connected:
            assert sink.wait_for_subscriber(5)
        source.close()
        reader.join(5)
    assert not reader.is_alive()
    assert received == []
    assert list(source) == []


def test_a_source_may_bind_and_many_sinks_connect():
    with closing(ZMQSource(ZMQEndpoint(address="127.0.0.1:0", bind=True))) as source:
        source.connect()
        received: list = []
        reader = threading.Thread(target=lambda: received.extend(islice(source, 3)))
        reader.start()
        for n in range(3):
            with closing(ZMQSink(ZMQEndpoint(address=source.address))) as sink:
                sink.connect()
                sink("start", {"uid": n})
        reader.join(10)
    assert {doc["uid"] for _, doc in received} == {0, 1, 2}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Folder with CURVE certificates of a server, a client that is let in, and one that is not."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "known").mkdir()
    for name in ("server", "client", "stranger"):
        zmq.auth.create_certificates(folder, name)
        (folder / f"{name}.key_secret").chmod(0o600)
    (folder / "client.key").rename(folder / "known" / "client.key")
    return folder


@pytest.mark.parametrize(("who", "let_in"), [("client", True), ("stranger", False), (None, False)])
def test_curve_lets_in_whom_it_knows(keys, who, let_in):
    server = keys / "server.key_secret"
    with closing(bound_sink(curve_secret_key=server, curve_client_keys=keys / "known")) as sink:
        curve = {"curve_secret_key": keys / f"{who}.key_secret", "curve_server_key": keys / "server.key"}
        endpoint = ZMQEndpoint(address=sink.address, connect_timeout_s=5 if let_in else 0.5, **(curve if who else {}))
        with closing(ZMQSource(endpoint)) as source:
            if not let_in:
                with pytest.raises(EndpointUnreachable, match="CURVE"):
                    source.connect()
                return
            source.connect()
            assert sink.wait_for_subscriber(5)
            sink("start", {"uid": "secret"})
            assert next(iter(source)) == ("start", {"uid": "secret"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"address": "127.0.0.1"}, "expected zmq://HOST:PORT"),
        ({"address": "http://127.0.0.1:80"}, "expected zmq://HOST:PORT"),
        ({"address": "127.0.0.1:70000"}, "expected zmq://HOST:PORT"),
        ({"address": "h:1", "serializer": "pickle"}, "needs allow_pickle: true"),
        ({"address": "h:1", "prefix": "a b"}, "expected no space"),
        ({"address": "h:1", "adress": "h:1"}, "adress"),
        ({"address": "h:1", "curve_secret_key": "/no/such/key"}, "file"),
        ({"address": "h:1", "curve_secret_key": __file__}, "both curve_secret_key and curve_server_key"),
        ({"address": "h:1", "bind": True, "curve_server_key": __file__}, "this one binds"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        ZMQEndpoint(**settings)


@pytest.mark.parametrize(
    ("peer_ends", "lost", "level"), [(False, "connection lost", "warning"), (True, "the beamline has ended", "info")]
)
def test_loss_and_return_of_the_peer_are_logged_once_each(peer_ends, lost, level):
    sink = bound_sink()
    address = sink.address
    source = ZMQSource(ZMQEndpoint(address=address.replace("tcp", "zmq")), peer_ends=peer_ends)
    received = []

    def read() -> None:
        received.extend(doc["uid"] for _, doc in source)

    with capture_logs() as logs:
        assert not source.connected
        source.connect()
        assert source.connected
        reader = threading.Thread(target=read)
        reader.start()
        assert sink.wait_for_subscriber(30)
        sink("start", {"uid": "before"})
        wait_until(lambda: received == ["before"])
        sink.close()
        wait_until(lambda: any(e["event"] == lost for e in logs))
        wait_until(lambda: not source.connected)
        with closing(ZMQSink(ZMQEndpoint(address=address.replace("tcp", "zmq"), bind=True))) as again:
            again.connect()
            assert again.wait_for_subscriber(30)
            again("start", {"uid": "after"})
            wait_until(lambda: received == ["before", "after"])
            wait_until(lambda: any(e["event"].startswith("connected again") for e in logs))
            assert source.connected
            source.close()
            reader.join(30)
    assert [(e["event"], e["log_level"]) for e in logs if e["event"].startswith(("connect", lost))] == [
        (lost, level),
        ("connected again; documents sent meanwhile are lost", "warning"),
    ]
