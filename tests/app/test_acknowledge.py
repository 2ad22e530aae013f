"""When a shared source is told that documents are safe."""

import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from deadline import wait_until
from shared_source import Source

from xas_agent.adapters.answers import Confirmations
from xas_agent.agent.types import Received
from xas_agent.app.acknowledge import Acknowledgements
from xas_agent.app.journal import Journal
from xas_agent.app.subscribers import Subscribers


class Broker:
    """Takes documents, and confirms none by itself."""

    def __init__(self) -> None:
        self.confirmations = Confirmations()

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        self.confirmations.send()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.sqlite")
    yield made
    made.close()


@pytest.fixture
def subscribers() -> Iterator[Subscribers]:
    made = Subscribers(100, 1e6)
    yield made
    made.close()


def received(place: int, name: str = "event", **doc: Any) -> Received:
    return Received(name, {"uid": str(place), **doc}, 0.0, {"partition 0": place})


def test_a_document_is_acknowledged_once_what_it_led_to_is_delivered(
    journal: Journal, subscribers: Subscribers
) -> None:
    source, gate, got = Source(), threading.Event(), list[str]()
    subscribers.add(lambda name, doc: (gate.wait(), got.append(name)))
    acknowledgements = Acknowledgements(source, journal, subscribers)
    batch = [received(1), received(2)]
    acknowledgements.add(batch, batch)
    acknowledgements.send()
    assert source.told == [({"partition 0": 2}, [])]
    subscribers.send([("event", {}), ("stop", {})])
    batch = [received(3)]
    acknowledgements.add(batch, batch)
    acknowledgements.send(["run"])
    assert len(source.told) == 1
    gate.set()
    wait_until(lambda: subscribers.delivered == 2)
    acknowledgements.send()
    assert source.told[1:] == [({"partition 0": 3}, ["run"])]


def test_nothing_is_acknowledged_while_the_journal_cannot_be_written(
    journal: Journal, subscribers: Subscribers
) -> None:
    source = Source()
    acknowledgements = Acknowledgements(source, journal, subscribers)
    batch = [received(1)]
    journal.accept(batch)  # one alone is written with what it leads to
    acknowledgements.add(batch, batch)
    acknowledgements.send()
    assert not source.told
    journal.commit(now=True)
    acknowledgements.send()
    assert source.told == [({"partition 0": 1}, [])]


def test_a_run_that_ended_in_an_earlier_process_is_over(journal: Journal, subscribers: Subscribers) -> None:
    source = Source()
    acknowledgements = Acknowledgements(source, journal, subscribers)
    batch = [received(1), received(2, "stop", run_start="run")]
    acknowledgements.add(batch, batch[:1])
    acknowledgements.send()
    assert source.told == [({"partition 0": 2}, ["run"])]


def test_nothing_is_acknowledged_after_a_document_was_lost(
    journal: Journal, subscribers: Subscribers, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(name: str, doc: dict[str, Any]) -> None:
        raise OSError("the broker is away")

    source = Source()
    subscribers.add(fail)
    acknowledgements = Acknowledgements(source, journal, subscribers)
    subscribers.send([("event", {})])
    batch = [received(1)]
    acknowledgements.add(batch, batch)
    wait_until(lambda: subscribers.delivered == 1)
    for _ in range(2):
        acknowledgements.send()
    assert not source.told
    assert caplog.text.count("nothing is acknowledged any more") == 1


def test_a_document_is_acknowledged_once_the_broker_has_confirmed_what_it_led_to(
    journal: Journal, subscribers: Subscribers
) -> None:
    source, broker = Source(), Broker()
    subscribers.add(broker)
    acknowledgements = Acknowledgements(source, journal, subscribers)
    subscribers.send([("event", {}), ("event", {})])
    batch = [received(1), received(2)]
    acknowledgements.add(batch, batch)
    wait_until(lambda: broker.confirmations.sent == 2)
    broker.confirmations.confirm(2)
    acknowledgements.send()
    assert not source.told
    broker.confirmations.send()  # what comes later does not count
    broker.confirmations.confirm(1)
    wait_until(lambda: subscribers.delivered == 2)
    acknowledgements.send()
    assert source.told == [({"partition 0": 2}, [])]


def test_a_run_that_another_agent_has_is_not_over(journal: Journal, subscribers: Subscribers) -> None:
    source = Source()
    acknowledgements = Acknowledgements(source, journal, subscribers)
    gate = threading.Event()
    subscribers.add(lambda name, doc: gate.wait())
    subscribers.send([("event", {})])
    acknowledgements.send(["kept", "lost"])
    source.given_up = ["lost"]
    assert acknowledgements.take_given_up() == ["lost"]
    gate.set()
    wait_until(lambda: subscribers.delivered == 1)
    acknowledgements.send()
    assert source.told == [({}, ["kept"])]


def test_nothing_is_acknowledged_after_a_document_that_the_journal_could_not_keep(
    journal: Journal, subscribers: Subscribers, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source()
    acknowledgements = Acknowledgements(source, journal, subscribers)
    batch = [received(1), received(2, value=object()), received(3)]
    assert journal.accept(batch) == batch
    acknowledgements.add(batch, batch)
    for _ in range(2):
        acknowledgements.send()
    assert not source.told
    assert journal.lost == 1
    assert caplog.text.count("nothing is acknowledged any more") == 1


def test_what_a_source_does_not_take_is_acknowledged_again(
    journal: Journal, subscribers: Subscribers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(position: Mapping[str, Any], ended: Collection[str]) -> None:
        raise OSError("the broker is away")

    source = Source()
    acknowledgements = Acknowledgements(source, journal, subscribers)
    batch = [received(1), received(2)]
    acknowledgements.add(batch, batch)
    with monkeypatch.context() as away:
        away.setattr(source, "acknowledge", fail)
        for _ in range(2):
            acknowledgements.send(["run"])
    assert not source.told
    acknowledgements.send()
    assert source.told == [({"partition 0": 2}, ["run", "run"])]
    assert caplog.text.count("the broker is away") == 1
