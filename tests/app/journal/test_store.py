"""The journal's file: exact values, checksums, pruning and a full disk."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logs import capture_logs

from xas_agent.agent.progress import Progress
from xas_agent.agent.types import InputError
from xas_agent.agent.types.frame import Document, Received
from xas_agent.app.delivery import Delivery
from xas_agent.app.journal import JOURNAL, Journal
from xas_agent.app.subscribers import Subscribers


def received(*documents: Document) -> list[Received]:
    return [Received(name, doc, time.monotonic()) for name, doc in documents]


def run(uid: str, *, events: int = 2, points: int = 5) -> list[Document]:
    docs: list[Document] = [("start", {"uid": uid}), ("descriptor", {"uid": f"{uid}-d", "run_start": uid})]
    for k in range(events):
        data = {"I0": np.arange(points) * 0.1 + k, "It": np.float32(k), "n": 3}
        docs.append(("event", {"uid": f"{uid}-{k}", "descriptor": f"{uid}-d", "seq_num": k + 1, "data": data}))
    return docs


def names(journal: Journal) -> list[str]:
    return [r.name for batch in journal.inputs() for r in batch]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / JOURNAL


def kill(journal: Journal) -> None:
    """Let go of the file as the end of a process does."""
    journal._file.close()


def test_documents_return_as_they_came(path: Path):
    journal, documents = Journal(path), run("a", points=1000)
    journal.accept(received(*documents))
    kill(journal)
    (batch,) = Journal(path).inputs()
    for (name, doc), again in zip(documents, batch, strict=True):
        assert again.name == name
        assert abs(again.at - time.monotonic()) < 60
        np.testing.assert_equal(again.doc, doc)
    data: Any = batch[-1].doc["data"]
    assert data["I0"].dtype == np.float64


def test_a_committed_document_outlives_a_torn_transaction(path: Path):
    journal = Journal(path)
    journal.accept(received(*run("a")))
    journal._file.execute("BEGIN IMMEDIATE")
    journal._file.execute("INSERT INTO inputs (run, name, at, crc32, doc) VALUES ('a', 'event', 0, 0, '')")
    wal = path.with_name(path.name + "-wal").read_bytes()
    kill(journal)
    path.with_name(path.name + "-wal").write_bytes(wal + b"torn")
    assert names(Journal(path)) == ["start", "descriptor", "event", "event"]


def test_a_damaged_record_is_left_out_and_reported(path: Path):
    journal = Journal(path)
    journal.accept(received(*run("a")))
    journal._file.execute("UPDATE inputs SET doc = zeroblob(length(doc)) WHERE id = 3")
    kill(journal)
    with capture_logs() as logs:
        assert names(Journal(path)) == ["start", "descriptor", "event"]
    assert [log["records"] for log in logs if "damaged" in log["event"]] == [1]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:4096] + bytes(len(b) - 4096)])
def test_a_journal_with_damage_is_refused_before_it_is_used(path: Path, damage: Callable[[bytes], bytes]):
    journal = Journal(path)
    journal.accept(received(*run("a", events=200, points=1000)))
    journal.close()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"damaged .*name another --out"):
        Journal(path)


@pytest.mark.slow
def test_a_journal_in_use_is_not_called_damaged(path: Path):
    journal = Journal(path)
    journal.accept(received(*run("a")))
    with pytest.raises(InputError, match="cannot be used as the journal: database is locked"):
        Journal(path)


def test_a_file_that_is_no_journal_is_refused(path: Path):
    path.write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="no journal or is damaged"):
        Journal(path)


ODD: list[Any] = ["\ud800", 2**63, 10**30, 1e400, {"deep": [[{}]]}]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_odd_values_neither_stop_the_journal_nor_are_lost(path: Path, odd: Any):
    journal = Journal(path)
    number = odd if isinstance(odd, int) else 1
    documents: list[Document] = [
        ("start", {"uid": str(odd), "value": odd}),
        ("descriptor", {"uid": f"{odd}-d", "run_start": str(odd), "name": str(odd)}),
        ("event", {"uid": f"{odd}-e", "descriptor": f"{odd}-d", "seq_num": number, "data": {}}),
    ]
    own = [("start", {"uid": "x", "time": 1.0, "parent_uid": str(odd)})]
    positions: Any = {(str(odd), "position"): {str(odd): [1, 1]}, (str(odd), "rules", "Co"): [str(odd)]}
    for _ in range(2):
        journal.accept(received(*documents))
        journal.publish(own, Progress([(str(odd), f"{odd}-e")], memory=positions), 0)
    assert journal.lost == 0
    kill(journal)
    journal = Journal(path)
    assert [r.doc for batch in journal.inputs() for r in batch][:3] == [doc for _, doc in documents]
    past = journal.past()
    assert list(past.answered) == [f"{odd}-e"]
    assert past.memory == positions
    journal.publish([], Progress(ended=[str(odd)]), 0)
    journal.accept(received(("start", {"uid": "later"})))
    journal.commit()
    assert names(journal) == ["start"]


def test_a_single_document_is_kept_with_what_it_leads_to(path: Path):
    journal = Journal(path)
    journal.accept(received(("start", {"uid": "a"})))
    assert not names(journal)
    own = [("start", {"uid": "x", "time": 1.0, "parent_uid": "a"})]
    numbers = journal.publish(own, Progress(), 0)
    kill(journal)
    journal = Journal(path)
    assert names(journal) == ["start"]
    assert [number for number, *_ in journal.undelivered()] == numbers


def test_what_cannot_be_unpacked_is_left_out(path: Path):
    journal = Journal(path)
    journal.accept(received(("start", {"uid": "a", "value": {(1, 2): 3}}), ("start", {"uid": "b"})))
    assert [r.doc["uid"] for batch in journal.inputs() for r in batch] == ["b"]


def test_what_is_not_needed_is_deleted(path: Path):
    journal = Journal(path)
    journal.accept(received(*run("a"), *run("b"), *run("c")))
    own = [
        ("start", {"uid": "x", "time": 1.0, "parent_uid": "a"}),
        ("descriptor", {"uid": "x-d", "run_start": "x", "name": "spectra"}),
    ]
    own += [("event", {"uid": f"x-{k}", "descriptor": "x-d"}) for k in range(3)]
    outcomes = [("a", "f1"), ("b", "f2")]
    memory = {("a", "rules", "Co"): [1], ("cell", "rules", "Co"): [2]}
    numbers = journal.publish(own, Progress(outcomes, ["a"], ["b"], memory), 0)
    assert names(journal) == ["start", "descriptor", "start", "descriptor", "event", "event"]
    past = journal.past()
    assert list(past.answered) == ["f2"]
    assert past.memory == {("cell", "rules", "Co"): [2]}
    journal.accept(received(*run("a"), *run("b")))  # late documents of a run that is over, or not watched
    assert len(names(journal)) == 8
    journal.publish([("stop", {"uid": "x-s", "run_start": "x"})], Progress(), numbers[-2])
    assert [name for _, name, _ in journal.undelivered()] == ["event", "stop"]
    kill(journal)
    journal = Journal(path)
    assert [name for _, name, _ in journal.undelivered()] == ["event", "stop"]
    journal.publish([], Progress(), numbers[-1] + 1)
    assert journal._file.execute("SELECT count(*) FROM published").fetchone() == (0,)
    assert journal.publish([("start", {"uid": "y", "time": 2.0})], Progress(), 0) == [numbers[-1] + 2]


def test_a_run_that_was_given_up_was_never_read(path: Path):
    journal = Journal(path)
    journal.accept(received(*run("a"), *run("b")))
    memory = {("a", "rules", "Co"): [1], ("b", "rules", "Co"): [2]}
    journal.publish([], Progress([("a", "f1"), ("b", "f2")], ["a"], [], memory), 0)
    journal.publish([], Progress(given_up=["a"]), 0)
    journal.accept(received(*run("a")))
    kill(journal)
    journal = Journal(path)
    past = journal.past()
    assert (list(past.answered), past.memory) == (["f2"], {("b", "rules", "Co"): [2]})
    assert len(journal.accept(received(*run("a")))) == 4  # "a" is not over


def test_runs_with_undelivered_documents_are_given_up(path: Path):
    journal = Journal(path)
    journal.accept(received(*run("a"), *run("b")))
    for name in ("a", "b"):
        own = [("start", {"uid": f"x{name}", "time": 1.0, "parent_uid": name})]
        own.append(("stop", {"uid": f"s{name}", "run_start": f"x{name}"}))
        numbers = journal.publish(own, Progress([(name, f"f{name}")], ["a"] if name == "a" else []), 0)
        if name == "b":
            journal.publish([], Progress(), 1)  # of both runs documents are not delivered
    kill(journal)
    assert numbers == [3, 4]
    journal = Journal(path)
    journal.give_up_undelivered()
    assert list(journal.past().answered) == []
    assert len(journal.accept(received(*run("a")))) == 4
    journal.publish([("start", {"uid": "xc", "time": 1.0, "parent_uid": "c"})], Progress([("c", "fc")]), 5)
    kill(journal)
    journal = Journal(path)
    journal.give_up_undelivered()
    assert list(journal.past().answered) == ["fc"]


def test_a_full_disk_is_reported_once_and_what_waits_is_written_later(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("xas_agent.app.journal.store._RETRY_S", 0.0)
    journal = Journal(path)
    journal.accept(received(*run("a")))
    (pages,) = journal._file.execute("PRAGMA page_count").fetchone()
    journal._file.execute(f"PRAGMA max_page_count = {pages + 1}")
    with capture_logs() as logs:
        for k in range(20):
            journal.accept(received(*run(f"b{k}", points=1000)))
        assert len(names(journal)) == 4
        journal._file.execute("PRAGMA max_page_count = 1000000")
        journal.accept(received(*run("c")))
    assert [log["event"] for log in logs] == ["journal not written", "journal written again"]
    assert len(names(journal)) == 4 * 22
    assert journal.lost == 0


NO_DOCUMENTS: list[Any] = [
    ("event", None),
    (None, {}),
    ((1,), {}),
    ("\ud800", {}),
    ("event", {"descriptor": object()}),
]


@pytest.mark.parametrize("odd", NO_DOCUMENTS, ids=["doc", "no name", "tuple", "half a character", "object"])
def test_what_is_no_document_costs_no_other_one(path: Path, odd: Any):
    journal, sound = Journal(path), received(*run("a"))
    batch = [*sound[:3], *received(odd), *sound[3:]]
    assert journal.accept(batch) == batch
    journal.accept(received(*run("b")))
    (count,) = journal._file.execute("SELECT count(*) FROM inputs WHERE run IN ('a', 'b')").fetchone()
    assert count == 8
    assert journal.safe


def test_any_failure_to_write_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("xas_agent.app.journal.store._RETRY_S", 0.0)
    journal = Journal(path)

    def fail() -> None:
        journal._file.execute("INSERT INTO ended (run) VALUES ('x')")
        raise MemoryError

    with monkeypatch.context() as broken, capture_logs() as logs:
        broken.setattr(journal, "_write_waiting", fail)
        assert len(journal.accept(received(*run("a")))) == 4
        assert not journal.safe
    assert len(journal.accept(received(*run("b")))) == 4
    assert journal.safe
    assert len(names(journal)) == 8
    assert [log["event"] for log in logs] == ["journal not written"]


def test_the_documents_of_the_agent_are_sent_if_the_journal_fails_on_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> None:
        raise MemoryError

    journal, subscribers, told = Journal(path), Subscribers(100, 1e6), list[str]()
    subscribers.add(lambda name, doc: told.append(name))
    delivery = Delivery(journal, subscribers)
    for part in ("_keep_published", "_keep_progress"):
        with monkeypatch.context() as broken:
            broken.setattr(journal, part, fail)
            delivery("start", {"uid": part, "time": 1.0, "parent_uid": "a"})
            delivery.commit(Progress())
    delivery("stop", {"uid": "s", "run_start": "x"})
    delivery.commit(Progress())
    subscribers.close()
    delivery.close()
    assert told == ["start", "start", "stop"]
    assert journal.lost == 2


def test_what_a_file_holds_back_is_not_delivered(path: Path):
    journal = Journal(path)
    journal.accept(received(*run("a")))
    own = [("start", {"uid": "x", "time": 1.0, "parent_uid": "a"})]
    (number,) = journal.publish(own, Progress(), 0)
    journal.held = lambda: True
    journal.publish([], Progress(), number)
    journal.close(number)
    journal = Journal(path)
    assert [name for _, name, _ in journal.undelivered()] == ["start"]
    journal.close(number)
    assert not list(Journal(path).undelivered())


def test_what_does_not_find_room_in_memory_is_counted(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("xas_agent.app.journal.store._RETRY_S", 0.0)
    journal = Journal(path)
    (pages,) = journal._file.execute("PRAGMA page_count").fetchone()
    journal._file.execute(f"PRAGMA max_page_count = {pages}")
    for k in range(30):
        journal.accept(received(*run(f"a{k}", events=1, points=100_000)))
    assert journal._waiting.size < 10_000_000
    journal._file.execute("PRAGMA max_page_count = 1000000")
    journal.commit()
    kept = names(journal)
    assert kept.count("start") == kept.count("descriptor") == 30
    assert journal.lost == 30 - kept.count("event") > 0


def test_a_format_of_the_future_is_refused(path: Path):
    kill(Journal(path))
    file = sqlite3.connect(path)
    file.execute("INSERT OR REPLACE INTO meta VALUES ('format', '2')")
    file.commit()
    file.close()
    with pytest.raises(InputError, match="format 2, expected 1"):
        Journal(path)


def test_a_page_counts_as_its_events(tmp_path: Path):
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    own = [
        ("start", {"uid": "x", "time": 1.0}),
        ("descriptor", {"uid": "x-d", "run_start": "x", "name": "descriptors"}),
        ("event_page", {"uid": ["e1", "e2", "e3"], "descriptor": "x-d", "seq_num": [1, 2, 3], "data": {}}),
        ("event", {"uid": "e4", "descriptor": "x-d", "seq_num": 4, "data": {}}),
    ]
    assert journal.publish(own, Progress(), 0) == [1, 2, 5, 6]
    assert journal.published == 6
    journal.close(5)
    again = Journal(path)
    assert again.published == 6
    assert [doc["uid"] for _, _, doc in again.undelivered()] == ["e4"]
    again.close()
