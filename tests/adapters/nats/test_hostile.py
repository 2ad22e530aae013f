"""What goes wrong at a NATS server or its operator's hands: each has a message, and nothing is lost."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from deadline import wait_until
from logs import capture_logs
from made_runs import Made
from nats_reader import reading, shared
from nats_server import Server

from xas_agent.adapters.errors import EndpointUnreachable
from xas_agent.adapters.nats import NATSDestination, NATSEndpoint, NATSShared, NATSSink, NATSSource
from xas_agent.adapters.nats import endpoint as endpoints
from xas_agent.adapters.nats import sink as sinks
from xas_agent.adapters.nats.endpoint import Link
from xas_agent.adapters.partition import partition_of


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may kill."""
    with Server(tmp_path) as made:
        made.make_stream("docs", "docs")
        yield made


def test_a_server_without_jetstream_is_named(tmp_path: Path) -> None:
    with Server(tmp_path, jetstream=False) as server:
        for made in (
            NATSSource(NATSShared(address=f"{server.address}/docs")),
            NATSSink(NATSDestination(address=server.address)),
        ):
            with pytest.raises(EndpointUnreachable, match="JetStream is not enabled"):
                made.connect()


def test_a_wrong_password_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(tmp_path, "--user", "agent", "--pass", "right") as server:
        monkeypatch.setenv("NATS_PASSWORD", "wrong")
        with pytest.raises(EndpointUnreachable, match="Authorization Violation"):
            NATSSource(NATSShared(address=server.address, user="agent", connect_timeout_s=2)).connect()


def test_documents_wait_while_the_server_is_away(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "CALL_S", 0.3)
    made = Made().sweep(array=True).sweep(array=True)
    with capture_logs() as logs, closing(NATSSink(NATSDestination(address=f"{own.address}/docs"))) as sink:
        for document in made.docs[:2]:
            sink(*document)
        own.kill()
        for document in made.docs[2:]:
            sink(*document)
        wait_until(lambda: any(line["event"] == "documents not taken" for line in logs))
        assert sink.confirmations.confirmed == 2
        own.start()
        wait_until(lambda: sink.confirmations.confirmed == len(made.docs))
    with closing(reading(shared(own, "docs"))) as reader:
        wait_until(lambda: len(reader.documents) == len(made.docs))
    events = [line["event"] for line in logs]
    assert events.count("documents not taken") == events.count("documents are taken again") == 1


def test_documents_wait_while_the_stream_is_full(server: Server) -> None:
    from nats.js.api import DiscardPolicy

    server.make_stream("full", "full", max_msgs=3, discard=DiscardPolicy.NEW)
    made = Made().sweep(array=True).sweep(array=True).sweep(array=True)
    link = Link(NATSEndpoint(address=server.address))
    with capture_logs() as logs, closing(NATSSink(NATSDestination(address=f"{server.address}/full"))) as sink:
        for document in made.docs:
            sink(*document)
        wait_until(lambda: any(line["event"] == "documents not taken" for line in logs))
        assert "maximum messages exceeded" in next(line["reason"] for line in logs if "reason" in line)
        assert sink.confirmations.confirmed == 3
        link.call(link.jetstream.purge_stream("full"))
        wait_until(lambda: sink.confirmations.confirmed == len(made.docs) == 5)
    link.close()


def test_a_document_that_is_too_large_is_named_and_delays_no_other(server: Server) -> None:
    server.make_stream("huge", "huge")
    made = Made().sweep(array=True)
    name, event = made.docs[-1]
    huge = {**event, "data": {"It": np.zeros(200_000)}}
    with capture_logs() as logs, closing(NATSSink(NATSDestination(address=f"{server.address}/huge"))) as sink:
        for document in (*made.docs[:-1], (name, huge), (name, event)):
            sink(*document)
        wait_until(lambda: sink.confirmations.confirmed == 3)
    assert sink.refused == 1
    assert "the server takes 1048576" in next(line["detail"] for line in logs if "too large" in line["event"])


def test_messages_that_are_no_documents_delay_no_document(server: Server) -> None:
    server.make_stream("odd", "odd")
    link = Link(NATSEndpoint(address=server.address))
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    rubbish = [
        b"",
        b"\xc1",
        msgpack.packb([1]),
        msgpack.packb({"uid": deep}),
        b"\xdf\xff\xff\xff\xff",
        b"x" * 900_000,
    ]
    for payload in rubbish:
        for name in ("start", "event", "stop", "descriptor", "nonsense"):
            link.call(link.jetstream.publish(f"odd.{name}", payload))
    made = Made().stop()
    for name, doc in made.docs:
        link.call(link.jetstream.publish(f"odd.{name}", msgpack.packb(doc)))
    link.close()
    with closing(reading(shared(server, "odd"))) as reader:
        wait_until(lambda: made.docs[-1][1]["uid"] in [doc.get("uid") for _, doc in reader.documents])
    assert reader.source.malformed >= 5 * (len(rubbish) - 1)


def test_a_consumer_that_is_deleted_in_use_is_made_again(server: Server) -> None:
    server.make_stream("cut", "cut")
    made = Made().sweep(array=True).stop()
    link = Link(NATSEndpoint(address=server.address))
    endpoint = shared(server, "cut")
    with (
        closing(NATSSink(NATSDestination(address=endpoint.address))) as sink,
        closing(reading(endpoint)) as reader,
    ):
        for document in made.docs[:2]:
            sink(*document)
        wait_until(lambda: len(reader.documents) == 2)
        link.call(link.jetstream.delete_consumer("cut", f"{endpoint.shared_name}-0"))
        for document in made.docs[2:]:
            sink(*document)
        wait_until(lambda: len(reader.documents) == len(made.docs))
    link.close()
    assert reader.uids() == [doc["uid"] for _, doc in made.docs]


def test_each_group_gets_all_documents(server: Server) -> None:
    server.make_stream("two", "two")
    made = Made().stop()
    with closing(NATSSink(NATSDestination(address=f"{server.address}/two"))) as sink:
        for document in made.docs:
            sink(*document)
    for group in ("one", "two"):
        with closing(reading(shared(server, "two", group=group))) as reader:
            wait_until(lambda: len(reader.documents) == len(made.docs))
            reader.acknowledge(made.uid)


@pytest.mark.parametrize("published", [1, 8])
def test_another_number_of_partitions_is_named(server: Server, published: int) -> None:
    subject = f"parts{published}"
    server.make_stream(subject, subject)
    made = next(run for run in (Made() for _ in range(1000)) if partition_of(run.uid, 8) >= 2).stop()
    with closing(NATSSink(NATSDestination(address=f"{server.address}/{subject}", partitions=published))) as sink:
        for document in made.docs:
            sink(*document)
    with capture_logs() as logs, closing(reading(shared(server, subject, partitions=2))):
        wait_until(lambda: any("in no partition" in line["event"] for line in logs))


def test_a_user_without_the_right_to_use_jetstream_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "CALL_S", 0.5)
    rights = tmp_path / "rights.conf"
    rights.write_text('authorization {users: [{user: agent, password: right, permissions: {publish: "docs.>"}}]}')
    monkeypatch.setenv("NATS_PASSWORD", "right")
    with Server(tmp_path, "-c", str(rights)) as server:
        for made in (
            NATSSource(NATSShared(address=f"{server.address}/docs", user="agent")),
            NATSSink(NATSDestination(address=server.address, user="agent")),
        ):
            with pytest.raises(EndpointUnreachable, match=r"JetStream did not answer .* may this user use its API"):
                made.connect()


def a_server_with_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, denied: str) -> Server:
    """Return a server whose agent may not use a part of JetStream's API, with a stream ``docs``."""
    rights = tmp_path / "rights.conf"
    agent = f'{{user: agent, password: right, permissions: {{publish: {{deny: ["{denied}"]}}}}}}'
    rights.write_text(f"authorization {{users: [{agent}, {{user: admin, password: right}}]}}")
    monkeypatch.setenv("NATS_PASSWORD", "right")
    server = Server(tmp_path, "-c", str(rights))
    link = endpoints.Link(NATSShared(address=f"{server.address}/docs", user="admin"))
    link.call(link.jetstream.add_stream(name="docs", subjects=["docs.>"]))
    link.close()
    return server


def test_documents_are_read_without_the_right_to_read_single_messages(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoints, "CALL_S", 1.0)
    with a_server_with_rights(tmp_path, monkeypatch, "$JS.API.STREAM.MSG.GET.docs") as server:
        settings: dict[str, Any] = {"user": "agent", "partitions": 2}
        made = Made().stop()
        with closing(NATSSink(NATSDestination(address=f"{server.address}/docs", **settings))) as sink:
            for document in made.docs:
                sink(*document)
        with closing(reading(shared(server, "docs", **settings))) as reader:
            wait_until(lambda: len(reader.documents) == len(made.docs))


def test_leases_that_the_server_refuses_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoints, "CALL_S", 0.5)
    with a_server_with_rights(tmp_path, monkeypatch, "$KV.>") as server:
        settings: dict[str, Any] = {"user": "agent", "partitions": 2}
        with capture_logs() as logs, closing(reading(shared(server, "docs", **settings))):
            wait_until(lambda: any(line["event"].startswith("leases have ended") for line in logs))
