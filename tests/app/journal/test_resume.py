"""Agents that are killed at any moment, one after another, publish together what an undisturbed one does."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import Made
from watched import Watched, WhiteLine, spectrum

from xas_agent.agent.decide.dispatch import ControlSettings
from xas_agent.agent.decide.rules import Rule, Rules
from xas_agent.agent.pipeline import Pipeline
from xas_agent.agent.progress import Progress
from xas_agent.agent.publish import Pages, events_of
from xas_agent.agent.relative import Anchor, RelativeQuantities, RelativeSettings
from xas_agent.agent.spectra.settings import AlignmentSettings
from xas_agent.agent.stream.reader import FrameReader
from xas_agent.agent.types.frame import Document, Received
from xas_agent.agent.types.protocols import Reply
from xas_agent.app.journal import Journal, store

RULE: Any = {
    "name": "high",
    "trigger": {"kind": "threshold", "descriptor": "OS", "above": 1.25, "window_frames": 7, "max_times": 50},
    "action": "stop",
}
ANCHORS = [Anchor.model_validate({"OS_mean": 3.0, **more}) for more in ({"frame": 5}, {"voltage_above": 3.0})]
RELATIVE = RelativeSettings(change=("OS",), rate=("OS",), rate_frames=5, references=("first", 3))
SERIES_QUANTITIES = ("OS_anchored", "OS_change", "OS_rate", "position")
CONTROLS = ControlSettings(enabled=True, allow=("stop",), max_age_s=60.0)


class Killed(BaseException):
    """The process ends at this point."""


@dataclass
class Beamline:
    """A control that carries a request out once, whatever process sends it."""

    done: dict[str, int] = field(default_factory=dict)

    def request(self, id: str, action: str, args: Any, timeout: float) -> Reply:
        self.done.setdefault(id, len(self.done))
        return Reply("acknowledged")

    def close(self) -> None: ...


class Life:
    """A pipeline with its journal, from its start to its kill."""

    def __init__(
        self,
        path: Path,
        control: Beamline,
        received: dict[str, Document],
        deaths: random.Random,
        controls: ControlSettings = CONTROLS,
        pages: Pages = "never",
    ) -> None:
        self._journal, self._received, self._deaths = Journal(path), received, deaths
        self._emitted: list[Document] = []
        self._delivered = 0
        self.kills = False
        self._pipeline = Pipeline(
            FrameReader(),
            [WhiteLine("Co"), WhiteLine("Ni")],
            AlignmentSettings(),
            Rules([Rule.model_validate(RULE)], units={"OS": "e"}),
            lambda name, doc: self._emitted.append((name, doc)),
            controls=controls,
            control=control,
            config_sha256="b" * 64,
            versions={},
            pages=pages,
            relative=RelativeQuantities(ANCHORS, RELATIVE, {"OS": "e"}),
            committed=self._commit,
        )

    def resume(self) -> None:
        for number, name, doc in self._journal.undelivered():
            self._deliver(name, doc)
            self._delivered = number
        self._pipeline.resume(self._journal.past(), self._journal.inputs())

    def feed(self, batch: Sequence[Document], position: int) -> None:
        self._may_die()
        self._journal.accept([Received(name, doc, time.monotonic(), {"next": position}) for name, doc in batch])
        self._may_die()
        self._pipeline.feed([Received(name, doc, time.monotonic()) for name, doc in batch])

    def settle(self) -> None:
        self._pipeline._requests.drain(30)
        self._pipeline.feed(())

    @property
    def position(self) -> int:
        return self._journal.position.get("next", 0)

    def die(self) -> None:
        self._pipeline._requests.close(hurried=True)
        self._journal._file.close()

    def _commit(self, progress: Progress) -> None:
        documents, self._emitted = self._emitted, []
        self._may_die()
        numbers = self._journal.publish(documents, progress, self._delivered)
        self._may_die()
        for number, (name, doc) in zip(numbers, documents, strict=True):
            self._deliver(name, doc)
            self._delivered = number
            self._may_die(0.1)

    def _deliver(self, name: str, doc: dict[str, Any]) -> None:
        if name == "event_page":
            for event in events_of(doc):
                self._deliver("event", event)
            return
        known = self._received.setdefault(doc["uid"], (name, doc))
        assert (known[0], str(known[1])) == (name, str(doc))

    def _may_die(self, share: float = 1.0) -> None:
        if self.kills and self._deaths.random() < 0.15 * share:
            raise Killed


def live(
    documents: list[Document], cuts: Sequence[int], seed: int, kills: int, pages: Pages = "never"
) -> tuple[list[Document], Beamline]:
    """Feed documents in batches that end at ``cuts`` to lives of which up to ``kills`` are killed."""
    received: dict[str, Document] = {}
    control, deaths = Beamline(), random.Random(seed)
    bounds = sorted({*cuts, 0, len(documents)})
    with TemporaryDirectory() as folder:
        while True:
            life = Life(Path(folder) / "journal.sqlite", control, received, deaths, pages=pages)
            life.kills, kills = kills > 0, kills - 1
            try:
                life.resume()
                for first in bounds[:-1]:
                    if first >= life.position:
                        following = bounds[bounds.index(first) + 1]
                        life.feed(documents[first:following], following)
                life.settle()
            except Killed:
                life.die()
                continue
            life.die()
            return list(received.values()), control


def content(documents: Sequence[Document]) -> dict[tuple[str, str], list[Any]]:
    """What the documents of each watched run and stream say, without what differs from process to process."""
    runs = {doc["uid"]: doc["parent_uid"] for name, doc in documents if name == "start"}
    streams = {doc["uid"]: (runs[doc["run_start"]], doc["name"]) for name, doc in documents if name == "descriptor"}
    said: dict[tuple[str, str], list[Any]] = {}
    for name, doc in documents:
        if name == "event" and doc["data"].get("status") not in ("proposed", "sent"):  # a decision may be sent twice
            data = doc["data"]
            known = ("frame_uid", "frame_seq_num", "uid", "reason", "action", "flags")
            values = [doc["seq_num"], round(data.get("OS_mean", 0), 2), *(data[key] for key in known if key in data)]
            values += [round(data[f"{name}_mean"], 2) for name in SERIES_QUANTITIES if f"{name}_mean" in data]
            values = [data["evidence"][:40]] if "status" in data else values
            said.setdefault(streams[doc["descriptor"]], []).append(values)
        elif name == "stop":
            said[runs[doc["run_start"]], "stop"] = [doc["exit_status"], doc["num_events"]["descriptors"]]
    return said


@cache
def runs() -> list[list[Document]]:
    heights = [0.1, 0.2, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9]
    first = Watched("Co", *heights, sample_name="cell").frame(spectrum(0.3)[::-1]).stop()
    own = [{"frame": 2, "OS_mean": 2.0}, {"frame": "first", "OS_mean": 2.1, "frames": 4}]
    second = Watched("Ni", *[0.8, 0.9] * 6, at=500.0, xas_anchors=own).stop()
    third = Watched("Co", *[0.9] * 9, at=900.0, sample_name="cell")  # never stops
    steps = Made()
    for k in range(4):  # spectra of chance, which are set aside
        steps.sweep(rising=k % 2 == 0).sweep(array=True, stream="whole")
    return [first.docs, second.docs, third.docs, steps.docs]


@pytest.fixture(params=["at once", "later"], scope="module")
def compacted(request: pytest.FixtureRequest) -> Iterator[None]:
    """The journal deletes answered Events at once, or later than this test takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_COMPACT_S", -1.0 if request.param == "at once" else 1e9)
        yield


@pytest.mark.slow
@given(st.data())
@settings(max_examples=10, deadline=None)
@pytest.mark.usefixtures("compacted")
def test_lives_publish_together_what_one_does(data: st.DataObject):
    queues = [list(docs) for docs in runs()]
    turns = data.draw(st.permutations([k for k, docs in enumerate(queues) for _ in docs]))
    order = [queues[k].pop(0) for k in turns]
    cuts = data.draw(st.lists(st.integers(1, len(order)), max_size=12))
    whole, one = live(order, cuts, 0, kills=0)
    pages = data.draw(st.sampled_from(["never", "auto", "always"]))
    parts, other = live(order, cuts, data.draw(st.integers(0, 2**32)), kills=8, pages=pages)
    assert len(one.done) == len(other.done) > 0

    assert content(parts) == content(whole)


def test_a_run_that_never_stops_keeps_few_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "_COMPACT_S", -1.0)
    documents = [*Watched("Co", *[0.1] * 120).docs]
    received: dict[str, Document] = {}
    for first in range(0, len(documents), 40):
        life = Life(tmp_path / "journal.sqlite", Beamline(), received, random.Random(0))
        life.resume()
        for k in range(first, first + 40, 8):
            life.feed(documents[k : k + 8], k + 8)
        life.settle()
        life._journal.publish([], Progress(), life._delivered)
        rows = {
            table: life._journal._file.execute(f"SELECT count(*) FROM {table}") for table in ("inputs", "outcomes")
        }
        assert {table: count.fetchone()[0] for table, count in rows.items()} == {"inputs": 2, "outcomes": 0}
        (published,) = life._journal._file.execute("SELECT count(*) FROM published").fetchone()
        assert published <= 5
        life.die()
    numbers = [doc["data"]["frame_seq_num"] for _, doc in received.values() if "OS_mean" in doc.get("data", {})]
    assert numbers == list(range(1, len(documents) - 1))
    assert sum(name == "start" for name, _ in received.values()) == 1


class Approved(Life):
    """A life that ends when an approval is in the journal, before anything is sent."""

    def _commit(self, progress: Progress) -> None:
        super()._commit(progress)
        if any(doc.get("data", {}).get("status") == "approved" for _, doc in self._received.values()):
            raise Killed


@pytest.mark.parametrize("approved_s", [0, 61])
def test_an_approval_of_an_old_proposal_is_not_lost_with_the_process(tmp_path: Path, approved_s: float):
    """The proposal is older than ``max_age_s``, which is 60 s; an approval of that age has expired."""
    control, received = Beamline(), dict[str, Document]()
    asking = ControlSettings(enabled=True, allow=("stop",), max_age_s=60.0, authority="confirm")
    life = Approved(tmp_path / "journal.sqlite", control, received, random.Random(0), asking)
    life.resume()
    life.feed([*Watched("Co", *[0.1] * 8, *[0.9] * 8).docs], 18)
    (decision, _), *_ = life._pipeline.decisions.unconfirmed
    life._journal._file.execute("UPDATE published SET at = at - 300")
    with pytest.raises(Killed):
        life._pipeline.decisions.approve(decision.id, "ada")
    life.die()
    assert control.done == {}
    journal = Journal(tmp_path / "journal.sqlite")
    journal._file.execute("UPDATE published SET at = at - ? WHERE id = (SELECT max(id) FROM published)", [approved_s])
    journal.close()

    life = Life(tmp_path / "journal.sqlite", control, received, random.Random(0), asking)
    life.resume()
    life.settle()
    life.die()
    told = [doc["data"] for _, doc in received.values() if "status" in doc.get("data", {})]
    statuses = [data["status"] for data in told if data["id"] == decision.id]
    if approved_s:
        assert (statuses, control.done) == (["proposed", "approved", "expired"], {})
    else:
        assert (statuses, control.done) == (["proposed", "approved", "sent", "acknowledged"], {decision.id: 0})
