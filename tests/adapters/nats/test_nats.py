"""Documents over JetStream, against Debian's nats-server."""

import itertools
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import closing

import msgpack
import numpy as np
import pytest
from deadline import wait_until
from made_runs import Made
from nats_reader import reading, shared
from nats_server import Server
from pydantic import ValidationError
from slow_link import SlowLink

from xas_agent.adapters.errors import EndpointUnreachable
from xas_agent.adapters.nats import NATSDestination, NATSEndpoint, NATSShared, NATSSink, NATSSource
from xas_agent.adapters.nats import source as sources
from xas_agent.adapters.nats.endpoint import Link
from xas_agent.adapters.nats.leases import Leases
from xas_agent.agent.types import REPLAYED_S

_numbers = itertools.count()


@pytest.fixture
def subject(server: Server) -> str:
    """Subject of a stream of its own."""
    name = f"docs{next(_numbers)}"
    server.make_stream(name, name)
    return name


@pytest.fixture
def sink(server: Server, subject: str) -> Iterator[NATSSink]:
    with closing(NATSSink(NATSDestination(address=f"{server.address}/{subject}"))) as made:
        yield made


def test_documents_come_as_they_were_sent(server: Server, subject: str, sink: NATSSink) -> None:
    made = Made(sample_name="cell").sweep(array=True).stop()
    for document in made.docs:
        sink(*document)
    with closing(reading(shared(server, subject))) as reader:
        wait_until(lambda: len(reader.documents) == len(made.docs))
    assert [name for name, _ in reader.documents] == [name for name, _ in made.docs]
    np.testing.assert_array_equal(reader.documents[2][1]["data"]["It"], made.docs[2][1]["data"]["It"])
    assert all(0 <= age < REPLAYED_S for age in reader.ages)


def test_messages_of_bluesky_nats_are_read(server: Server, subject: str) -> None:
    # Its publisher packs with ormsgpack, arrays as lists, to SUBJECT.NAME, with the run in a header.
    made = Made().stop()
    link = Link(NATSEndpoint(address=server.address))
    for name, doc in made.docs:
        message = {"subject": f"{subject}.{name}", "payload": msgpack.packb(doc), "headers": {"run_id": made.uid}}
        link.call(link.jetstream.publish(**message))
    link.call(link.jetstream.publish(f"{subject}.event", b"\xc1"))
    link.call(link.jetstream.publish(f"{subject}.rubbish", b"{}"))
    with closing(reading(shared(server, subject))) as reader:
        wait_until(lambda: len(reader.documents) == len(made.docs) and reader.source.malformed == 2)
    link.close()
    assert reader.documents == [(name, dict(doc)) for name, doc in made.docs]


def test_documents_that_waited_at_the_server_have_their_age(
    server: Server, subject: str, sink: NATSSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made().sweep(array=True).stop()
    for document in made.docs:
        sink(*document)
    now = time.time
    monkeypatch.setattr(sources.time, "time", lambda: now() + 3600)
    with closing(reading(shared(server, subject))) as reader:
        wait_until(lambda: len(reader.documents) == len(made.docs))
    assert all(3600 <= age < REPLAYED_S for age in reader.ages)


def test_a_run_in_progress_goes_to_the_next_agent_from_its_start(
    server: Server, subject: str, sink: NATSSink
) -> None:
    over, open_run = Made().sweep(array=True).stop(), Made().sweep(array=True)
    for document in [*over.docs, *open_run.docs]:
        sink(*document)
    sent = len(over.docs) + len(open_run.docs)
    with closing(reading(shared(server, subject))) as first:
        wait_until(lambda: len(first.documents) == sent)
        first.acknowledge(over.uid)
    open_run.stop()
    sink(*open_run.docs[-1])
    with closing(reading(shared(server, subject))) as second:
        wait_until(lambda: len(second.documents) == len(open_run.docs))
        second.acknowledge(open_run.uid)
    assert second.uids() == [doc["uid"] for _, doc in open_run.docs]
    # What the first agent acknowledged is too old for rules; what it had not seen is new.
    assert all(age >= REPLAYED_S for age in second.ages[:-1])
    assert second.ages[-1] < REPLAYED_S
    later = Made().stop()
    for document in later.docs:
        sink(*document)
    with closing(reading(shared(server, subject))) as third:
        wait_until(lambda: len(third.documents) == len(later.docs))
    assert third.uids() == [doc["uid"] for _, doc in later.docs]


_HOLDS = """
import sys, time
from xas_agent.adapters.nats import NATSShared, NATSSource
source = NATSSource(NATSShared.model_validate_json(sys.argv[1]))
source.connect()
while not source.partitions:
    time.sleep(0.01)
print("holds", flush=True)
time.sleep(60)
"""


def test_a_killed_agents_partition_is_taken_after_its_lease(server: Server, subject: str, sink: NATSSink) -> None:
    endpoint = shared(server, subject)
    command = [sys.executable, "-c", _HOLDS, endpoint.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "holds\n"
        killed.kill()
    made = Made().stop()
    for document in made.docs:
        sink(*document)
    with closing(reading(endpoint)) as reader:
        wait_until(lambda: len(reader.documents) == len(made.docs))


def test_agents_share_the_partitions_and_each_run_is_whole(server: Server, subject: str) -> None:
    with closing(NATSSink(NATSDestination(address=f"{server.address}/{subject}", partitions=4))) as sink:
        runs = [Made().sweep(array=True).stop() for _ in range(20)]
        for batch in itertools.zip_longest(*(run.docs for run in runs)):
            for document in filter(None, batch):
                sink(*document)
    endpoint = shared(server, subject, partitions=4)
    with closing(reading(endpoint)) as one:
        wait_until(lambda: len(one.source.partitions) == 4)
        with closing(reading(endpoint)) as two:
            wait_until(lambda: len(one.source.partitions) == len(two.source.partitions) == 2)
            assert not one.source.partitions.keys() & two.source.partitions.keys()
            wait_until(lambda: {*one.uids(), *two.uids()} == {doc["uid"] for run in runs for _, doc in run.docs})
    for run in runs:
        mine = {doc["uid"] for _, doc in run.docs}
        assert any(
            [uid for uid in reader.uids() if uid in mine] == [d["uid"] for _, d in run.docs] for reader in (one, two)
        )


def test_many_partitions_are_held_over_a_slow_link(
    server: Server, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renewed one after the other, their leases would end before."""
    renew, lost, partitions = Leases.renew, list[set[int]](), 64

    async def noted(leases: Leases, busy: Collection[int]) -> tuple[set[int], set[int], set[int]]:
        found = await renew(leases, busy)
        lost.append(found[0])
        return found

    monkeypatch.setattr(Leases, "renew", noted)
    with SlowLink(server.port, 0.05) as link:
        address = f"nats://127.0.0.1:{link.port}/{subject}"
        with closing(reading(NATSShared(address=address, lease_s=5, partitions=partitions))) as reader:
            wait_until(lambda: len(reader.source.partitions) == partitions)
            begun = len(lost)
            wait_until(lambda: len(lost) >= begun + 2)
    assert not any(lost)
    assert reader.source.takeovers == partitions


def test_an_answer_is_published_once(server: Server, subject: str, sink: NATSSink) -> None:
    watched = Made()
    for sender in (sink, NATSSink(sink.endpoint)):
        own = Made(xas_agent=True, parent_uid=watched.uid)
        stream = own.run.compose_descriptor(name="descriptors", data_keys={}, validate=False)
        sender("start", own.run.start_doc)
        sender("descriptor", dict(stream.descriptor_doc))
        data = {"frame_uid": "frame.1", "OS": 2.0}
        sender("event", dict(stream.compose_event(data=data, timestamps={}, validate=False)))
    sender.close()
    assert sink.repeated == 0
    assert sender.repeated == 1
    with closing(reading(shared(server, subject))) as reader:
        wait_until(lambda: len(reader.documents) == 5)
    assert [name for name, _ in reader.documents].count("event") == 1


def test_a_server_that_restarts_loses_nothing(server: Server, subject: str, sink: NATSSink) -> None:
    made = Made().sweep(array=True).stop()
    with closing(reading(shared(server, subject, lease_s=20))) as reader:
        for document in made.docs[:2]:
            sink(*document)
        wait_until(lambda: len(reader.documents) == 2)
        server.kill()
        wait_until(lambda: not reader.source.connected)
        server.start()
        for document in made.docs[2:]:
            sink(*document)
        wait_until(lambda: len(reader.documents) == len(made.docs))
    assert reader.uids() == [doc["uid"] for _, doc in made.docs]


def test_endpoints_that_do_not_answer_are_named(server: Server) -> None:
    with pytest.raises(EndpointUnreachable, match=r"no NATS server answered within 0\.2 s"):
        NATSSource(NATSShared(address="nats://127.0.0.1:1", connect_timeout_s=0.2)).connect()
    with pytest.raises(
        EndpointUnreachable,
        match=r"no stream with subject nowhere\.>; make it: nats stream add NAME --sub",
    ):
        NATSSink(NATSDestination(address=f"{server.address}/nowhere")).connect()


@pytest.mark.parametrize("address", ["http://a:1", "nats://", "nats://u:p@a", "nats://a/b.>"])
def test_addresses_that_cannot_be_used_are_refused(address: str) -> None:
    with pytest.raises(ValidationError):
        NATSEndpoint(address=address)
