"""Documents over Kafka, against librdkafka's mock cluster."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from deadline import wait_until
from kafka_cluster import Cluster
from logs import capture_logs
from made_runs import Made
from pydantic import ValidationError
from shared_reader import Reader

from xas_agent.adapters.errors import EndpointUnreachable
from xas_agent.adapters.kafka import KafkaDestination, KafkaEndpoint, KafkaShared, KafkaSink, KafkaSource
from xas_agent.adapters.kafka import source as sources
from xas_agent.agent.types import REPLAYED_S

_numbers = itertools.count()


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def address(cluster: Cluster) -> str:
    return cluster.make_topic(f"docs{next(_numbers)}")


@pytest.fixture
def sink(address: str) -> Iterator[KafkaSink]:
    with closing(KafkaSink(KafkaDestination(address=address))) as made:
        yield made


def reading(address: str, group: str = "") -> Reader:
    group = group or address.rpartition("/")[2]
    return Reader(KafkaSource(KafkaShared(address=address, begin="all", lease_s=2, group=group)))


def test_documents_come_as_they_were_sent(address: str, sink: KafkaSink) -> None:
    made = Made(sample_name="cell").sweep(array=True).stop()
    for document in made.docs:
        sink(*document)
    with closing(reading(address)) as reader:
        wait_until(lambda: len(reader.documents) == len(made.docs))
    assert [name for name, _ in reader.documents] == [name for name, _ in made.docs]
    np.testing.assert_array_equal(reader.documents[2][1]["data"]["It"], made.docs[2][1]["data"]["It"])


def test_messages_of_bluesky_kafka_are_read(cluster: Cluster, address: str) -> None:
    # Its Publisher packs (name, doc) with msgpack_numpy, under the key that the beamline chose.
    made = Made().sweep(array=True).stop()
    topic = KafkaEndpoint(address=address).topic
    for document in made.docs:
        cluster.send(topic, "beamline", msgpack.packb(document, default=msgpack_numpy.encode))
    for rubbish in (b"\xc1", b"", msgpack.packb(["rubbish", {}]), msgpack.packb({"start": 1})):
        cluster.send(topic, "beamline", rubbish)
    with closing(reading(address)) as reader:
        wait_until(lambda: len(reader.documents) == len(made.docs) and reader.source.malformed == 4)
    assert reader.uids() == [doc["uid"] for _, doc in made.docs]


def test_a_run_in_progress_goes_to_the_next_agent_from_its_start(address: str, sink: KafkaSink) -> None:
    over, open_run = Made().sweep(array=True).stop(), Made().sweep(array=True)
    for document in [*over.docs, *open_run.docs]:
        sink(*document)
    with closing(reading(address)) as first:
        wait_until(lambda: len(first.documents) == len(over.docs) + len(open_run.docs))
        first.acknowledge(over.uid)
    open_run.stop()
    sink(*open_run.docs[-1])
    with closing(reading(address)) as second:
        wait_until(lambda: len(second.documents) == len(open_run.docs))
    assert second.uids() == [doc["uid"] for _, doc in open_run.docs]
    assert all(age >= REPLAYED_S for age in second.ages[:-1])
    assert second.ages[-1] < REPLAYED_S


def test_documents_that_waited_at_the_brokers_have_their_age(
    address: str, sink: KafkaSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made().sweep(array=True).stop()
    for document in made.docs:
        sink(*document)
    now = time.time
    monkeypatch.setattr(sources.time, "time", lambda: now() + 3600)
    with closing(reading(address)) as reader:
        wait_until(lambda: len(reader.documents) == len(made.docs))
    assert all(3600 <= age < REPLAYED_S for age in reader.ages)


@pytest.mark.slow
def test_a_rebalance_keeps_each_run_whole(address: str, sink: KafkaSink) -> None:
    runs = [Made().sweep(array=True).stop() for _ in range(20)]
    batches = list(itertools.zip_longest(*(run.docs for run in runs)))
    for document in filter(None, itertools.chain(*batches[:2])):
        sink(*document)
    with closing(reading(address)) as one:
        wait_until(lambda: len(one.documents) == 40)
        with closing(reading(address)) as two:
            wait_until(lambda: len(one.source.partitions) == len(two.source.partitions) == 2)
            for document in filter(None, itertools.chain(*batches[2:])):
                sink(*document)
            wait_until(lambda: {*one.uids(), *two.uids()} == {doc["uid"] for run in runs for _, doc in run.docs})
    for run in runs:
        whole = [doc["uid"] for _, doc in run.docs]
        assert any([uid for uid in reader.uids() if uid in whole] == whole for reader in (one, two))


def answering(sink: KafkaSink, watched: Made) -> Callable[[str], None]:
    """Begin an agent's run for a watched run; return what answers a frame in it."""
    own = Made(xas_agent=True, parent_uid=watched.uid)
    stream = own.run.compose_descriptor(name="descriptors", data_keys={}, validate=False)
    sink("start", own.run.start_doc)
    sink("descriptor", dict(stream.descriptor_doc))

    def answer(frame: str) -> None:
        sink("event", dict(stream.compose_event(data={"frame_uid": frame, "OS": 2.0}, timestamps={}, validate=False)))

    return answer


def sharing(reader: Reader, answers: KafkaDestination) -> KafkaSink:
    """Return the sink of an agent with this source."""
    made, source = KafkaSink(answers), reader.source
    made.takeovers, made.holds, source.handing_over = lambda: source.takeovers, source.holds, made.hand_over
    return made


def test_an_answer_is_published_once(address: str, sink: KafkaSink) -> None:
    watched, takeovers = Made(), 0
    sink.takeovers = lambda: takeovers
    with closing(KafkaSink(sink.endpoint)) as other:
        first = answering(sink, watched)
        first("frame.1")
        wait_until(lambda: sink.confirmations.confirmed == sink.confirmations.sent == 3)
        second = answering(other, watched)  # it has read the run from its start
        second("frame.1")
        second("frame.2")
        assert (sink.repeated, other.repeated) == (0, 1)
        wait_until(lambda: other.confirmations.confirmed == other.confirmations.sent == 3)
        takeovers += 1  # and now the run comes back
        first("frame.2")
        first("frame.3")
        assert (sink.repeated, other.repeated) == (1, 1)
    with closing(reading(address)) as reader:
        wait_until(lambda: len(reader.documents) == 7)
    assert [doc["data"]["frame_uid"] for name, doc in reader.documents if name == "event"] == [
        "frame.1", "frame.2", "frame.3",
    ]  # fmt: skip


@pytest.mark.slow
def test_what_waits_of_a_run_that_went_to_another_agent_is_left_to_it(
    cluster: Cluster, address: str, sink: KafkaSink
) -> None:
    answers = KafkaDestination(address=cluster.make_topic(f"answers{next(_numbers)}"))
    runs = [Made().sweep(array=True).sweep(array=True).stop() for _ in range(20)]
    frames = {run.uid: [doc["uid"] for name, doc in run.docs if name == "event"] for run in runs}
    for document in itertools.chain.from_iterable(run.docs for run in runs):
        sink(*document)
    with closing(reading(address)) as one, closing(sharing(one, answers)) as first:
        wait_until(lambda: len(one.documents) == sum(len(run.docs) for run in runs))
        at_first, read = {run.uid: answering(first, run) for run in runs}, dict(one.positions)
        for uid, answer in at_first.items():
            answer(frames[uid][0])  # and the second frames wait in the agent
        with closing(reading(address)) as two, closing(sharing(two, answers)) as second:
            wait_until(lambda: len(one.source.partitions) == len(two.source.partitions) == 2)
            gone = one.source.take_given_up()
            wait_until(lambda: {run.uid for run in runs if two.source.holds(run.uid)} == set(gone))
            wait_until(lambda: len(two.documents) == sum(len(run.docs) for run in runs if run.uid in gone))
            one.source.acknowledge(read, gone)  # too late: they are the other's
            for run in runs:
                if run.uid in gone:
                    answer = answering(second, run)
                    for frame in frames[run.uid]:
                        answer(frame)
            for uid, answer in at_first.items():
                answer(frames[uid][1])
            assert first.left == second.repeated == len(gone) > 0
            assert [one.source.is_current({key: place}) for key, place in read.items()].count(False) == 2
        wait_until(lambda: len(one.source.partitions) == 4)  # runs that nobody acknowledged come back
        wait_until(lambda: all(one.uids().count(frames[uid][1]) == 2 for uid in gone))
        one.source.acknowledge(read, ())  # as read before
        assert sum(partition.settled for partition in one.source.partitions.values()) == 2
        for uid in gone:
            for frame in frames[uid]:
                at_first[uid](frame)
        assert first.repeated == 2 * len(gone)
    with closing(reading(answers.address)) as reader:
        wait_until(lambda: len(reader.documents) == 4 * len(runs) + 2 * len(gone))
    found = [doc["data"]["frame_uid"] for name, doc in reader.documents if name == "event"]
    assert sorted(found) == sorted(itertools.chain.from_iterable(frames.values()))


def test_brokers_that_are_slow_when_partitions_come_end_nothing(
    cluster: Cluster, address: str, sink: KafkaSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made().sweep(array=True).stop()
    for document in made.docs:
        sink(*document)
    sink.close()
    source = KafkaSource(KafkaShared(address=address, begin="all", lease_s=2, group=address.rpartition("/")[2]))
    source.connect()
    monkeypatch.setattr("xas_agent.adapters.kafka.source.CALL_S", 0.02)
    cluster.delay(0.2)
    with capture_logs() as logs, closing(Reader(source)) as reader:
        wait_until(lambda: sum(log["event"] == "places not read, tried again" for log in logs) > 1)
        cluster.delay(0.0)
        monkeypatch.undo()
        wait_until(lambda: len(reader.documents) == len(made.docs))
    assert reader.uids() == [doc["uid"] for _, doc in made.docs]


def test_an_agent_that_ends_knows_which_runs_go_to_others(address: str, sink: KafkaSink) -> None:
    runs = [Made().sweep(array=True) for _ in range(20)]
    for document in itertools.chain.from_iterable(run.docs for run in runs):
        sink(*document)
    one = reading(address)
    wait_until(lambda: len(one.documents) == sum(len(run.docs) for run in runs))
    one.source.close()  # and it goes on to answer
    with closing(reading(address)) as two:
        wait_until(lambda: len(two.source.partitions) == 2)
        held = {run.uid for run in runs if one.source.holds(run.uid)}
        assert held.isdisjoint(gone := one.source.take_given_up())
        assert {*held, *gone} == {run.uid for run in runs}
    one.close()


def test_endpoints_that_do_not_answer_are_named(cluster: Cluster) -> None:
    with pytest.raises(EndpointUnreachable, match=r"no Kafka broker answered within 0\.2 s"):
        KafkaSource(KafkaShared(address="kafka://127.0.0.1:1/docs", connect_timeout_s=0.2)).connect()
    with pytest.raises(EndpointUnreachable, match="found no topic nowhere"):
        KafkaSource(KafkaShared(address=f"kafka://{cluster.brokers}/nowhere")).connect()


@pytest.mark.parametrize("address", ["http://a:1/b", "kafka://a:1", "kafka:///b", "kafka://u:p@a:1/b"])
def test_addresses_that_cannot_be_used_are_refused(address: str) -> None:
    with pytest.raises(ValidationError):
        KafkaEndpoint(address=address)


def test_documents_wait_while_the_brokers_are_away(cluster: Cluster, address: str, sink: KafkaSink) -> None:
    made = Made().sweep(array=True).stop()
    with closing(reading(address)) as reader:
        for document in made.docs[:2]:
            sink(*document)
        wait_until(lambda: len(reader.documents) == 2)
        cluster.stop()
        try:
            wait_until(lambda: not reader.source.connected)
            for document in made.docs[2:]:
                sink(*document)
            assert sink.confirmations.confirmed == 2
        finally:
            cluster.start()
        wait_until(lambda: len(reader.documents) == sink.confirmations.confirmed == len(made.docs))
    assert reader.uids() == [doc["uid"] for _, doc in made.docs]


def test_a_document_that_is_too_large_is_named_and_delays_no_other(address: str, sink: KafkaSink) -> None:
    made = Made().sweep(array=True)
    name, event = made.docs[-1]
    with capture_logs() as logs:
        for document in (*made.docs[:-1], (name, {**event, "data": {"It": np.zeros(200_000)}}), (name, event)):
            sink(*document)
        wait_until(lambda: sink.confirmations.confirmed == sink.confirmations.sent)
    assert sink.refused == 1
    assert "message.max.bytes" in next(line["detail"] for line in logs if "too large" in line["event"])


def test_each_group_gets_all_documents(address: str, sink: KafkaSink) -> None:
    made = Made().stop()
    for document in made.docs:
        sink(*document)
    for group in ("one", "two"):
        with closing(reading(address, group)) as reader:
            wait_until(lambda: len(reader.documents) == len(made.docs))
            reader.acknowledge(made.uid)


def test_a_new_group_begins_where_the_topic_ended_when_it_connected(address: str, sink: KafkaSink) -> None:
    before, after = Made().stop(), Made().stop()
    for document in before.docs:
        sink(*document)
    wait_until(lambda: sink.confirmations.confirmed == len(before.docs))
    source = KafkaSource(KafkaShared(address=address, group="late"))
    source.connect()
    for document in after.docs:
        sink(*document)
    documents = iter(source)  # the group is joined only now
    assert [next(documents)[1]["uid"] for _ in after.docs] == [doc["uid"] for _, doc in after.docs]
    source.release()


def fill(cluster: Cluster, topic: str, run: str) -> None:
    """Send more than the mock cluster keeps of a partition, as numbered answers to a run."""
    for k in range(700):
        headers = [("frame", f"{k}.descriptors".encode())]
        cluster.producer.produce(topic, bytes(10_000), key=run, headers=headers)
        cluster.producer.poll(0)
    cluster.producer.flush(10)
    assert cluster.deleted(topic, 1) > 0


def test_answers_that_the_topic_does_not_have_any_more_hold_nothing_up(cluster: Cluster) -> None:
    watched, takeovers, topic = Made(), 0, f"kept{next(_numbers)}"
    with closing(KafkaSink(KafkaDestination(address=cluster.make_topic(topic, 1)))) as sink:
        sink.takeovers = lambda: takeovers
        answer = answering(sink, watched)
        answer("first")
        wait_until(lambda: sink.confirmations.confirmed == 3)
        fill(cluster, topic, watched.uid)
        takeovers += 1
        for frame in ("699", "first", "700"):
            answer(frame)
        assert sink.repeated == 2


def test_reading_goes_on_where_the_topic_begins_if_its_place_is_deleted(cluster: Cluster) -> None:
    made, topic = Made().stop(), f"kept{next(_numbers)}"
    source = KafkaSource(KafkaShared(address=cluster.make_topic(topic, 1), group=topic))
    source.connect()
    fill(cluster, topic, "rubbish")
    with closing(KafkaSink(KafkaDestination(address=source.endpoint.address))) as sink:
        for document in made.docs:
            sink(*document)
    documents = iter(source)
    assert [next(documents)[1]["uid"] for _ in made.docs] == [doc["uid"] for _, doc in made.docs]
    assert source.malformed == 700 - cluster.deleted(topic, 1)
    source.release()
