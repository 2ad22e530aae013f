"""What a live source loses comes from a real Tiled server, once and in order."""

import queue
from collections.abc import Iterator
from itertools import islice
from typing import Any

import event_model
import pytest
from tiled_server import write

from xas_agent.adapters.tiled import FilledSource, TiledEndpoint
from xas_agent.agent.types import Document

pytestmark = pytest.mark.slow


class Live:
    """A source that yields what it is given; it loses the rest."""

    def __init__(self) -> None:
        self.connected = True
        self._documents: queue.SimpleQueue[Document | None] = queue.SimpleQueue()

    def connect(self) -> None:
        pass

    def __iter__(self) -> Iterator[Document]:
        return iter(self._documents.get, None)

    def close(self) -> None:
        self._documents.put(None)

    def put(self, *documents: Document) -> None:
        for document in documents:
            self._documents.put(document)


class Run:
    """A run of Events with one number each."""

    def __init__(self, time: float) -> None:
        self.bundle = event_model.compose_run(time=time)
        keys = {"mu": {"source": "x", "dtype": "number", "shape": []}}
        self.stream = self.bundle.compose_descriptor(
            name="primary", data_keys=keys, configuration={}, object_keys={"x": ["mu"]}
        )
        self.uid = self.bundle.start_doc["uid"]
        self.head = [("start", dict(self.bundle.start_doc)), ("descriptor", dict(self.stream.descriptor_doc))]

    def events(self, count: int) -> list[Document]:
        made = (self.stream.compose_event(data={"mu": 0.5}, timestamps={"mu": 0.0}) for _ in range(count))
        return [("event", dict(doc)) for doc in made]

    def stop(self) -> Document:
        return "stop", dict(self.bundle.compose_stop())


@pytest.fixture
def ends(catalogue: Any) -> tuple[Any, Live, FilledSource]:
    client, endpoint, _ = catalogue
    live = Live()
    quick = TiledEndpoint(uri=endpoint.uri, poll_s=0.05, fill_s=20.0)
    return client, live, FilledSource(live, quick)


def seen(documents: list[Document]) -> list[Any]:
    return [doc.get("seq_num", name) for name, doc in documents]


def of(run: Run, documents: list[Document]) -> list[Document]:
    """Return the documents of one run."""
    uids = {run.uid, run.head[1][1]["uid"]}
    return [d for d in documents if {d[1].get("uid"), d[1].get("run_start"), d[1].get("descriptor")} & uids]


def test_a_gap_is_filled_before_what_follows_it(ends: Any) -> None:
    client, live, source = ends
    run, other = Run(1e9), Run(1e9 + 1)
    events = run.events(6)
    writer = write(client, [*run.head, *events[:2]], batch_size=1)
    live.put(*run.head, events[0], events[3], *other.head, *other.events(1), events[4])
    reading = iter(source)
    documents = list(islice(reading, 6))
    assert [doc["uid"] for _, doc in documents[3:5]] == [other.uid, other.head[1][1]["uid"]], "others do not wait"
    for event in events[2:]:  # the writer is behind
        writer(*event)
    documents += islice(reading, 4)
    assert source.age_s > 0
    live.put(events[5], run.stop(), other.stop())
    live.close()
    documents += reading
    assert seen(of(run, documents)) == ["start", "descriptor", 1, 2, 3, 4, 5, 6, "stop"]


def test_who_comes_late_gets_the_beginning(ends: Any) -> None:
    client, live, source = ends
    run = Run(1e9)
    events = run.events(5)
    write(client, [*run.head, *events], batch_size=1)
    live.put(*events[3:], run.stop())
    live.close()
    assert seen(list(source)) == ["start", "descriptor", 1, 2, 3, 4, 5, "stop"]


def test_runs_of_an_interruption_are_read_whole(ends: Any) -> None:
    client, live, source = ends
    before, during, after = (Run(1e9 + k) for k in range(3))
    events = before.events(3)
    live.put(*before.head, events[0])
    reading = iter(source)
    documents = list(islice(reading, 3))
    live.connected = False
    live.put(*after.head)  # the source looks at ``connected`` between documents
    documents += islice(reading, 2)
    write(client, [*before.head, *events, before.stop(), *during.head, *during.events(2), during.stop()])
    live.connected = True
    documents += islice(reading, 8)
    live.put(after.stop())
    live.close()
    documents += reading
    assert documents[-1][1]["run_start"] == after.uid
    assert sorted(map(str, seen(documents))) == sorted(
        ["start", "descriptor", "stop"] * 3 + ["1", "2", "3"] + ["1", "2"]
    )
    assert sum(doc["run_start"] == before.uid for name, doc in documents if name == "stop") == 1


def test_after_a_restart_the_catalogue_gives_what_came_meanwhile(ends: Any) -> None:
    client, live, source = ends
    run, ended = Run(1e9), Run(1e9 + 5)
    events = run.events(5)
    position: dict[str, Any] = {}
    live.put(*run.head, events[0])
    for _ in islice(source, 3):
        position |= source.position
    write(client, [*run.head, *events[:4], *ended.head, *ended.events(1), ended.stop()], batch_size=1)
    live = Live()
    source = FilledSource(live, source.endpoint)
    source.resume(position)
    reading = iter(source)
    documents = list(islice(reading, 7))
    live.put(events[4], run.stop())
    live.close()
    documents += reading
    mine = of(run, documents)
    assert seen(mine) == [2, 3, 4, 5, "stop"]
    assert seen([d for d in documents if d not in mine]) == ["start", "descriptor", 1, "stop"]


def test_what_the_catalogue_lacks_is_given_up(ends: Any, caplog: pytest.LogCaptureFixture) -> None:
    client, live, source = ends
    source.endpoint = source._lost._endpoint = source.endpoint.model_copy(update={"fill_s": 0.1})
    run, unknown = Run(1e9), Run(1e9 + 1)
    events = run.events(4)
    write(client, [*run.head, events[0]], batch_size=1)
    live.put(*run.head, events[0], events[3], *unknown.events(2), unknown.stop())
    live.close()
    assert seen(list(source)) == ["start", "descriptor", 1, 4, 1, 2, "stop"]
    assert caplog.text.count("lost documents are not in the catalogue") >= 2
