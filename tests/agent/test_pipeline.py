"""Documents in, the agent's own documents out: through assembly, alignment, a model, rules and a control."""

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import event_model
import numpy as np
import pytest
from deadline import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import capture_logs
from made_runs import Made
from numpy.typing import NDArray
from valid import check_document
from watched import RELATIVE, Watched, WhiteLine, spectrum

from xas_agent.agent.decide.dispatch import ControlSettings
from xas_agent.agent.decide.rules import Rule, Rules
from xas_agent.agent.pipeline import Pipeline
from xas_agent.agent.publication import Publication
from xas_agent.agent.publish import AgentRun, FrameRows, events_of
from xas_agent.agent.relative import Anchor, RelativeQuantities, RelativeSettings
from xas_agent.agent.spectra.settings import AlignmentSettings
from xas_agent.agent.stream.deadlines import PATIENCE_DOCUMENTS
from xas_agent.agent.stream.reader import FrameReader
from xas_agent.agent.stream.runs import MAX_OPEN_RUNS
from xas_agent.agent.types import REPLAYED_S, Decision
from xas_agent.agent.types.estimate import DescriptorEstimate, Estimate
from xas_agent.agent.types.estimates import Estimates
from xas_agent.agent.types.frame import Document, Received
from xas_agent.agent.types.protocols import Reply

OFF = ControlSettings()


class Piped:
    """A pipeline and the documents that it emitted."""

    def __init__(
        self,
        *rules: Rule,
        controls: ControlSettings = OFF,
        control: Any = None,
        **options: Any,
    ) -> None:
        self.models = [WhiteLine("Co"), WhiteLine("Ni")]
        self.documents: list[Document] = []
        self.pipeline = Pipeline(
            FrameReader(),
            self.models,
            AlignmentSettings(),
            Rules(rules, units={"OS": "e"}),
            lambda name, doc: self.documents.append((name, doc)),
            controls=controls,
            control=control,
            config_sha256="b" * 64,
            versions={"xas_agent": "test"},
            **options,
        )

    def feed(self, *documents: Sequence[Document]) -> "Piped":
        """Feed each sequence in one call."""
        for batch in documents:
            self.pipeline.feed([Received(name, doc, time.monotonic()) for name, doc in batch])
        return self

    def named(self, name: str) -> list[dict[str, Any]]:
        return [doc for each, doc in self.documents if each == name]

    def run_of(self, watched: Watched) -> str:
        (start,) = [s for s in self.named("start") if s["parent_uid"] == watched.uid]
        return start["uid"]

    def events(self, stream: str, watched: Watched | None = None) -> list[dict[str, Any]]:
        """Data of the events of a stream, of one watched run or of all."""
        run = watched and self.run_of(watched)
        uids = {d["uid"] for d in self.named("descriptor") if d["name"] == stream and run in (None, d["run_start"])}
        return [e["data"] for e in self.named("event") if e["descriptor"] in uids]

    def numbers(self, watched: Watched | None = None) -> list[int]:
        return [data["frame_seq_num"] for data in self.events("descriptors", watched)]

    def asides(self) -> dict[str, int]:
        return dict(Counter(data["reason"] for data in self.events("quality")))

    def settle(self) -> None:
        """Wait until no decision is on its way."""

        def settled() -> bool:
            self.pipeline.feed(())
            return not self.pipeline._requests.open

        wait_until(settled, 10)

    def check(self) -> None:
        """All documents are valid and every run is whole, once the decisions are settled."""
        self.settle()
        for name, doc in self.documents:
            check_document(name, doc)
        starts = [s["uid"] for s in self.named("start")]
        assert sorted(s["run_start"] for s in self.named("stop")) == sorted(starts)


def test_each_frame_is_answered_with_its_own_estimate():
    heights = [0.1, 0.5, 0.3, 0.9]
    watched, piped = Watched("Ni", *heights).stop(), Piped()
    piped.feed(watched.docs).check()
    events = piped.events("descriptors")
    assert [e["frame_seq_num"] for e in events] == [1, 2, 3, 4]
    assert [e["frame_uid"] for e in events] == [doc["uid"] for name, doc in watched.docs if name == "event"]
    assert np.argsort([e["OS_mean"] for e in events]).tolist() == np.argsort(heights).tolist()
    assert {e["voltage"] for e in events} == {3.9}
    assert piped.models[1].batches == [4]  # frames that came together are served together
    (start,) = piped.named("start")
    assert (start["element"], start["model"]["name"], start["xas_agent"]) == ("Ni", "ni-k", True)
    (keys,) = (d["data_keys"] for d in piped.named("descriptor") if d["name"] == "descriptors")
    unitless = {name for name, key in keys.items() if key["dtype"] == "number" and not key.get("units")}
    assert unitless == {"voltage"}  # the watched run does not say


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_how_the_documents_are_batched_changes_nothing(data):
    runs = [Watched("Co", 0.2, 0.6).frame(spectrum(0.1)[::-1]).stop(), Watched("Ni", 0.4, 0.5, 0.7).stop()]
    turns = data.draw(st.permutations([k for k, r in enumerate(runs) for _ in r.docs]))
    queues = [iter(r.docs) for r in runs]
    order = [next(queues[k]) for k in turns]
    bounds = [0, *sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=5))), len(order)]
    chunked, whole = Piped(max_batch=data.draw(st.integers(1, 4))), Piped()
    chunked.feed(*(order[a:b] for a, b in pairwise(bounds))).check()
    whole.feed(order).check()
    for run in runs:
        one, other = ({e["frame_uid"]: e["OS_mean"] for e in p.events("descriptors", run)} for p in (chunked, whole))
        assert one == pytest.approx(other, abs=1e-6)
        assert chunked.numbers(run) == whole.numbers(run)


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("why", ["single_site", "hardly_known"])
def test_what_means_nothing_or_is_hardly_known_is_published_and_shown_when_asked(asked, why):
    piped = Piped(show_single_site=asked)
    setattr(piped.models[1], why, frozenset({"OS"}))
    piped.feed(Watched("Ni", 0.5).stop().docs).check()
    (described,) = [d for d in piped.named("descriptor") if d["name"] == "descriptors"]
    assert described["hints"]["xas_agent"]["fields"] == (["OS_mean"] if asked else [])
    assert "OS_mean" in piped.events("descriptors")[0]


def test_what_cannot_be_served_is_told_and_the_rest_is_served():
    watched = Watched("Co", 0.3)
    watched.frame(np.full_like(RELATIVE, np.nan)).frame(0.3 + 0 * RELATIVE).frame(spectrum(0.3), "Ni")
    watched.frame(0.3 + 1e-3 * np.sin(7 * RELATIVE)).frame(spectrum(0.4)).stop()
    piped = Piped()
    piped.feed(watched.docs).check()
    assert piped.numbers() == [1, 6]
    reasons = piped.asides()
    assert set(reasons.values()) == {1}
    assert set(reasons) == {"NaN in data", "It constant", "does not cover the grid", "edge step within noise"}
    assert sorted(q["frame_seq_num"] for q in piped.events("quality")) == [2, 3, 4, 5]


def test_a_frame_whose_judgement_fails_costs_the_others_nothing_and_none_is_published_twice(monkeypatch):
    def judge(self, frame, estimate, quantities):
        if frame.seq_num == 3:
            raise ZeroDivisionError
        return []

    monkeypatch.setattr(Rules, "__call__", judge)
    piped = Piped(HIGH)
    piped.feed(Watched("Ni", 0.1, 0.5, 0.3, 0.9).stop().docs).check()
    assert piped.numbers() == [1, 2, 3, 4]
    assert piped.asides() == {"internal error": 1}


def test_a_frame_that_the_model_cannot_answer_does_not_take_others_with_it():
    piped = Piped()
    model = piped.models[1]
    answer = model.estimate

    def estimate(spectra, extra_sd=None):
        if (spectra.max(1) > 2).any():
            raise RuntimeError("no answer")
        return answer(spectra, extra_sd)

    model.estimate = estimate
    piped.feed(Watched("Ni", 0.1, 0.5, 1.9, 0.3).stop().docs).check()
    assert piped.numbers() == [1, 2, 4]
    assert piped.asides() == {"internal error": 1}


@pytest.mark.parametrize("element", ["Co", "Ni"])
def test_the_energies_choose_where_the_run_names_no_element(element):
    piped = Piped()
    piped.feed(Watched(element, 0.3, claim=False).stop().docs).check()
    (start,) = piped.named("start")
    assert start["model"]["name"] == f"{element}-k".lower()


def test_one_run_over_two_edges_is_served_by_two_models():
    watched = Watched("Co", 0.3, claim=False).frame(spectrum(0.5), "Ni").frame(spectrum(0.4)).stop()
    piped = Piped()
    piped.feed(watched.docs).check()
    assert piped.numbers() == [1, 2, 3]
    assert [m.batches for m in piped.models] == [[1, 1], [1]]


def test_no_model_for_the_named_element():
    watched = Watched("Co", 0.3, claim=False, edge="Fe_K").stop()
    piped = Piped()
    piped.feed(watched.docs).check()
    (note,) = piped.events("quality")
    assert note["reason"] == "no model"
    assert "Fe K" in note["detail"]


def test_interleaved_runs_each_have_their_own():
    a, b = Watched("Co", 0.1, 0.2).stop("fail", "beam dump"), Watched("Ni", 0.3, 0.4).stop()
    mixed = [d for pair in zip(a.docs, b.docs, strict=True) for d in pair]
    piped = Piped()
    piped.feed(*([d] for d in mixed)).check()
    assert piped.numbers(a) == piped.numbers(b) == [1, 2]
    status = {s["run_start"]: (s["exit_status"], s["reason"]) for s in piped.named("stop")}
    assert status[piped.run_of(a)] == ("fail", "the watched run ended with fail: beam dump")
    assert status[piped.run_of(b)] == ("success", "")


def test_a_run_that_waits_for_documents_does_not_delay_the_end_of_another():
    waits, whole = Watched("Co", 0.1, 0.2).stop(), Watched("Ni", 0.3, 0.4).stop()
    lost = waits.docs.pop(3)
    piped = Piped()
    piped.feed([d for pair in zip(waits.docs, whole.docs, strict=False) for d in pair], whole.docs[-1:])
    assert [s["run_start"] for s in piped.named("stop")] == [piped.run_of(whole)]
    assert piped.pipeline.busy
    piped.feed([lost])
    assert not piped.pipeline.busy
    piped.check()
    assert piped.numbers(waits) == piped.numbers(whole) == [1, 2]


def test_a_run_that_never_stops_ends_when_too_many_are_open():
    first, others = Watched("Co", 0.1), [Watched("Ni") for _ in range(MAX_OPEN_RUNS)]
    piped = Piped()
    piped.feed(first.docs, [d for other in others for d in other.docs])
    (stop,) = piped.named("stop")
    assert (stop["exit_status"], stop["reason"]) == ("abort", "the watched run never stopped")


def test_a_run_that_is_aborted():
    piped = Piped()
    piped.feed(Watched("Co", 0.1).stop("abort").docs).check()
    assert piped.named("stop")[0]["exit_status"] == "abort"


def _deep() -> list[Any]:
    """Lists in lists, of which Python has no text."""
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    return deep


@pytest.mark.parametrize("junk", [_deep(), 3, None, np.zeros(2)], ids=["deep", "number", "none", "array"])
def test_a_run_whose_status_is_no_text_is_ended(junk: Any):
    whole, cut = Watched("Co", 0.2).stop(), Made(num_points=1000).sweep().stop()
    for made in (whole, cut):
        made.docs[-1][1].update(exit_status=junk, reason=junk)
    piped = Piped().feed(whole.docs, cut.docs)
    piped.check()
    assert {(stop["exit_status"], stop["reason"][:23]) for stop in piped.named("stop")} == {
        ("fail", "the watched run ended w")
    }
    assert piped.asides() == {"sweep cut short": 1}
    assert piped.pipeline.lost == 0


def test_a_run_that_never_stops_is_closed_with_the_pipeline():
    piped = Piped()
    piped.feed(Watched("Co", 0.1).docs)
    assert not piped.named("stop")
    piped.pipeline.close("enough")
    piped.check()
    assert piped.named("stop")[0]["exit_status"] == "abort"
    assert "enough" in piped.named("stop")[0]["reason"]


def test_joined_late_is_told_and_its_frames_are_answered():
    watched, piped = Watched("Ni", 0.1, 0.2), Piped()
    piped.feed(watched.docs[1:])
    assert not piped.documents  # the start might still come
    piped.pipeline.idle()
    assert piped.numbers(watched) == [1, 2]
    assert piped.asides() == {"joined late": 1}
    piped.feed(watched.frame(spectrum(0.3)).stop().docs[-2:]).check()
    assert piped.numbers(watched) == [1, 2, 3]


def test_documents_later_than_their_stop_are_waited_for():
    watched = Watched("Co", 0.1, 0.2).stop()
    *before, last, stop = watched.docs
    piped = Piped()
    piped.feed([*before, stop])
    assert not piped.named("stop")
    piped.feed([last])
    assert piped.numbers() == [1, 2]
    piped.pipeline.idle()
    piped.check()
    assert piped.asides() == {}


def test_what_comes_after_all_waiting_is_told():
    watched = Watched("Co", 0.1, 0.2).stop()
    *before, last, stop = watched.docs
    piped = Piped()
    piped.feed([*before, stop])
    piped.pipeline.idle()
    piped.check()
    assert piped.asides() == {"events lost": 1}
    piped.feed([last])
    piped.pipeline.close("the end")
    piped.check()  # in a run of its own, since the first has ended
    assert piped.asides() == {"events lost": 1, "late": 1}
    assert [s["parent_uid"] for s in piped.named("start")].count(watched.docs[0][1]["uid"]) == 1


def test_a_source_that_is_never_quiet_ends_the_wait_too():
    watched, other = Watched("Co", 0.1, 0.2).stop(), Watched("Ni")
    *before, _, stop = watched.docs
    piped = Piped()
    piped.feed([*before, stop], other.docs[:1] * PATIENCE_DOCUMENTS)
    piped.check()
    assert piped.numbers() == [1]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_order_loss_and_repetition_gives_valid_runs_and_no_frame_twice(data):
    runs = [Watched("Co", 0.2, 0.6).stop(), Watched("Ni", 0.4).stop("abort")]
    every = [d for r in runs for d in r.docs]
    stream = [every[i] for i in data.draw(st.lists(st.integers(0, len(every) - 1), max_size=2 * len(every)))]
    piped = Piped()
    for document in stream:
        piped.feed([document])
        if data.draw(st.booleans()):
            piped.pipeline.idle()
    piped.pipeline.close()
    piped.check()
    answered = [e["frame_uid"] for e in piped.events("descriptors")]
    assert len(set(answered)) == len(answered)


@pytest.mark.parametrize("handed_on", [False, True])
def test_a_scan_that_is_cut_off_is_left_to_the_agent_that_reads_its_run_again(handed_on: bool):
    unknown = Made(element="Fe").sweep()  # no model is for it, so that notes wait
    piped = Piped().feed(Watched("Co", 0.1).docs, Made().sweep().docs[:-3], unknown.docs[:-3])
    piped.pipeline.close(handed_on=handed_on)
    piped.check()
    assert len(piped.events("descriptors")) == 1
    assert piped.asides() == ({} if handed_on else {"run never stopped": 2})


@pytest.mark.parametrize("left_out", [0, 1, 3])
def test_a_run_that_was_given_up_is_new_when_it_comes_back(left_out: int):
    watched, other, piped = Watched("Co", 0.1, 0.2).stop(), Watched("Ni", 0.3, 0.4).stop(), Piped()
    scan = Made(element="Co").sweep()
    piped.feed(watched.docs[: len(watched.docs) - left_out], other.docs[:3], scan.docs[:-3])
    piped.pipeline.give_up([watched.uid, scan.uid])
    piped.feed(other.docs[3:], watched.docs)
    piped.check()
    answered = Counter(data["frame_uid"] for data in piped.events("descriptors"))
    twice = [doc["uid"] for name, doc in watched.docs[: len(watched.docs) - left_out] if name == "event"]
    assert answered == Counter(doc["uid"] for name, doc in [*watched.docs, *other.docs] if name == "event") + Counter(
        twice
    )
    assert piped.asides() == {}


def test_garbage_is_told_and_costs_nothing_else():
    watched, piped = Watched("Co", 0.1).stop(), Piped()
    start, descriptor, event, stop = watched.docs
    garbage: list[Any] = [("start", {}), ("event", {"descriptor": []}), ("nonsense", {}), ("stop", {"run_start": 3})]
    piped.feed([start, *garbage, descriptor, *garbage, event, *garbage, stop])
    piped.pipeline.close()
    piped.check()
    assert piped.numbers(watched) == [1]
    assert piped.asides() == {"malformed document": 12}


@dataclass
class Obedient:
    """A control that writes down what it was asked."""

    reply: Callable[[], Reply] = lambda: Reply("acknowledged", "stopping")
    asked: list[str] = field(default_factory=list)

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        self.asked.append(action)
        return self.reply()

    def close(self) -> None: ...


HIGH = Rule.model_validate(
    {"name": "high", "trigger": {"kind": "threshold", "descriptor": "OS", "above": 1.0}, "action": "stop"}
)


def test_advice_only_unless_controls_are_on():
    control = Obedient()
    piped = Piped(HIGH, control=control)
    piped.feed(Watched("Co", 0.1, 0.9).stop().docs).check()
    (decision,) = piped.events("decisions")
    assert decision["status"] == "proposed"
    assert "advice only" in decision["status_reason"]
    assert control.asked == []


@pytest.mark.parametrize(
    ("reply", "last"),
    [
        (lambda: Reply("acknowledged", "stopping"), ("acknowledged", "stopping")),
        (lambda: Reply("rejected", "no"), ("rejected", "no")),
        (lambda: 1 / 0, ("expired", "the control failed, outcome unknown: ZeroDivisionError: division by zero")),
    ],
)
def test_a_decision_is_followed_to_its_end_before_the_runs_stop(reply, last):
    control = Obedient(reply)
    piped = Piped(HIGH, controls=ControlSettings(enabled=True, allow=("stop",)), control=control)
    watched = Watched("Co", 0.1, 0.9, 0.9).stop()
    piped.feed(watched.docs).check()
    told = piped.events("decisions")
    assert [d["status"] for d in told] == ["proposed", "sent", last[0]]
    assert told[-1]["status_reason"] == last[1]
    assert len({d["id"] for d in told}) == 1
    assert [uid for uid, _ in json.loads(told[0]["evidence"])] == [watched.docs[3][1]["uid"]]
    assert control.asked == ["stop"]
    assert piped.documents[-1][0] == "stop"


@dataclass
class Teller(Obedient):
    """A control that takes notifications as well."""

    actions = ("notify", "stop")


def of_stage(**changed: Any) -> Rule:
    return HIGH.model_copy(update={"stage": "search", "go_to": "end", **changed})


@pytest.mark.parametrize("status", ["acknowledged", "rejected", "expired"])
@pytest.mark.parametrize("action", ["stop", "notify"])
def test_a_decision_that_was_sent_leads_on_whatever_the_answer(status, action):
    control = Teller(lambda: Reply(status, "said"))
    piped = Piped(of_stage(action=action), controls=ControlSettings(enabled=True, allow=("stop",)), control=control)
    for document in Watched("Co", *[0.9] * 4, 0.1, 0.9).stop().docs:
        piped.feed([document]).settle()
    piped.check()
    assert [d["status"] for d in piped.events("decisions")] == ["proposed", "sent", status]


@pytest.mark.parametrize("answered", ["limit", "person"])
def test_a_decision_that_was_not_sent_is_asked_again_only_after_its_condition_ended(answered):
    controls = ControlSettings.model_validate(
        {"enabled": True, "allow": ["stop"]}
        | ({"authority": "confirm"} if answered == "person" else {"limits": {"stop": {"per_run": 0}}})
    )
    piped = Piped(of_stage(), controls=controls, control=Obedient())
    for document in Watched("Co", *[0.9] * 4, 0.1, *[0.9] * 4).stop().docs:
        piped.feed([document])
        for decision, _ in piped.pipeline.decisions.unconfirmed:
            piped.pipeline.decisions.reject(decision.id, "ada")
        piped.settle()
    piped.check()
    told = [d["status"] for d in piped.events("decisions")]
    assert told == ["proposed", "rejected"] * 2


def test_an_order_of_a_person_names_the_sample_of_its_run():
    piped = Piped(controls=ControlSettings(enabled=True), control=Obedient())
    watched = Watched("Co", 0.1, sample_name="cell 3", scan_id=7)
    piped.feed(watched.docs)
    piped.pipeline.decisions.order("pause", "ada")
    piped.settle()
    piped.feed(watched.stop().docs[-1:])
    piped.check()
    assert {(d["sample"], d["scan_id"], d["status"]) for d in piped.events("decisions")} == {
        ("cell 3", 7, status) for status in ("proposed", "sent", "acknowledged")
    }


def test_an_action_that_is_not_allowed_is_rejected():
    control = Obedient()
    piped = Piped(HIGH, controls=ControlSettings(enabled=True, allow=("pause",)), control=control)
    piped.feed(Watched("Co", 0.9).stop().docs).check()
    assert [d["status"] for d in piped.events("decisions")] == ["proposed", "rejected"]
    assert control.asked == []


def test_a_series_goes_on_over_the_runs_of_a_sample():
    rule = HIGH.model_copy(update={"trigger": HIGH.trigger.model_copy(update={"dwell_frames": 2})})
    for sample, decided in ((("cell", "cell"), 1), (("cell", "other"), 0)):
        piped = Piped(rule)
        for uid in sample:
            piped.feed(Watched("Co", 0.9, sample_uid=uid).stop().docs)
        assert len(piped.events("decisions")) == decided


SAMPLES: tuple[Callable[[str], dict[str, Any]], ...] = (
    lambda name: {"sample_uid": name},
    lambda name: {"sample_name": name},
    lambda name: {"sample": {"name": name}},
    lambda name: {"XDI": {"Sample": {"name": name}}},
)


def told_of(piped: Piped, watched: Sequence[Watched]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return what was published on runs: the estimate and flags of each frame, the evidence of each decision."""
    estimates = {
        e["frame_uid"]: (pytest.approx(e["OS_mean"], abs=1e-6), e["flags"], e["sample"])
        for run in watched
        for e in piped.events("descriptors", run)
    }
    decisions = [(d["rule"], d["evidence"]) for run in watched for d in piped.events("decisions", run)]
    return estimates, decisions


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_samples_that_alternate_are_judged_as_each_alone(data):
    rule = HIGH.model_copy(update={"trigger": HIGH.trigger.model_copy(update={"dwell_frames": 3})})
    heights = st.lists(st.lists(st.sampled_from([0.1, 0.9]), min_size=1, max_size=2), min_size=1, max_size=4)
    series: list[list[Watched]] = []
    for number, named in enumerate(data.draw(st.lists(st.sampled_from(SAMPLES), min_size=2, max_size=3))):
        runs = enumerate(data.draw(heights))
        metadata = named(f"s{number}")
        series.append([Watched("Co", *h, at=1000.0 * k, **metadata).stop() for k, h in runs])
    queues = [[doc for run in runs for doc in run.docs] for runs in series]
    turns = data.draw(st.permutations([k for k, docs in enumerate(queues) for _ in docs]))
    left = [iter(docs) for docs in queues]
    together = Piped(rule)
    together.feed([next(left[k]) for k in turns]).check()
    for number, (runs, docs) in enumerate(zip(series, queues, strict=True)):
        alone = Piped(rule)
        alone.feed(docs).check()
        assert told_of(together, runs) == told_of(alone, runs)
        assert {e["sample"] for run in runs for e in together.events("descriptors", run)} == {f"s{number}"}


def test_frames_of_another_sample_do_not_trigger_a_rule():
    rule = HIGH.model_copy(update={"trigger": HIGH.trigger.model_copy(update={"dwell_frames": 2})})
    piped = Piped(rule)
    runs = [Watched("Co", 0.9, at=1000.0 * k, sample_name=name, scan_id=k) for k, name in enumerate("abcab")]
    for run in runs:
        piped.feed(run.stop().docs)
    decisions = piped.events("decisions")
    assert [(d["sample"], d["scan_id"]) for d in decisions] == [("a", 3), ("b", 4)]
    uids = [next(doc["uid"] for name, doc in run.docs if name == "event") for run in runs]
    evidence = [[uid for uid, _ in json.loads(d["evidence"])] for d in decisions]
    assert evidence == [[uids[0], uids[3]], [uids[1], uids[4]]]


def test_what_is_set_aside_is_named():
    piped = Piped()
    piped.feed(Watched("Co", sample_name="NiO", scan_id=7, filename="/data/a.dat").frame(RELATIVE * 0).stop().docs)
    (note,) = piped.events("quality")
    assert [note[key] for key in ("sample", "scan_id", "file", "element")] == ["NiO", 7, "a.dat", "Co"]


# ------------------------------------------------------------------ overload


def test_under_overload_every_nth_frame_is_answered_and_the_rest_is_counted():
    watched, piped = Watched("Ni", *[0.5] * 40), Piped(max_latency_s=2.0)
    with capture_logs() as logs:
        piped.pipeline.plan(20_000)  # so many wait as would take far longer than 2 s
        piped.feed(watched.docs[:30])
        wait_until(lambda: piped.feed([]) and not piped.pipeline.busy)  # the frames left out are reported
        piped.pipeline.plan(3)
        piped.feed(watched.docs[30:], []).feed(Watched.stop(watched).docs[-1:])
    piped.check()
    answered = piped.numbers()
    left_out = sum(q["count"] for q in piped.events("quality") if q["reason"] == "overload")
    assert 0 < left_out == 40 - len(answered)
    assert answered[-12:] == list(range(29, 41))  # normal again
    assert len(piped.events("quality")) == 1
    flags = [e["flags"] for e in piped.events("descriptors")]
    assert "energy uncertainty reused" not in flags[-1]
    assert [e["event"] for e in logs if "overload" in e["event"]] == ["overload: some frames are left out"]


def test_a_flood_that_can_be_answered_in_time_is_answered_from_the_start():
    watched, piped = Watched("Ni", *[0.5] * 800).stop(), Piped(max_latency_s=2.0)
    piped.pipeline.plan(800)
    piped.feed(watched.docs).check()
    assert piped.numbers() == list(range(1, 801))


def test_frames_of_one_page_that_are_left_out_are_all_counted():
    watched, piped = Watched("Ni", *[0.5] * 40), Piped(max_latency_s=2.0)
    head, events = watched.docs[:2], [doc for name, doc in watched.docs if name == "event"]
    piped.feed(head)
    piped.pipeline.plan(20_000)
    piped.feed([("event_page", dict(event_model.pack_event_page(*events)))]).feed(Watched.stop(watched).docs[-1:])
    left_out = [q for q in piped.events("quality") if q["reason"] == "overload"]
    assert sum(q["count"] for q in left_out) == 40 - len(piped.numbers()) > 0


def test_when_behind_the_energy_uncertainty_is_reused():
    watched, piped = Watched("Ni", *[0.5] * 60).stop(), Piped(max_latency_s=2.0)
    piped.feed(watched.docs[:10])
    piped.pipeline.plan(800)  # documents that wait, but not so many that frames are left out
    piped.feed(watched.docs[10:]).check()
    assert len(piped.numbers()) == 60
    assert "energy uncertainty reused" in {e["flags"] for e in piped.events("descriptors")}


@pytest.mark.parametrize("max_latency_s", [None, 2.0])
def test_nothing_is_left_out_without_overload(max_latency_s):
    watched, piped = Watched("Ni", *[0.5] * 10).stop(), Piped(max_latency_s=max_latency_s)
    piped.pipeline.plan(20_000 if max_latency_s is None else 100)
    piped.feed(watched.docs).check()
    assert piped.numbers() == list(range(1, 11))
    assert piped.events("quality") == []


NO_NUMBER = DescriptorEstimate(math.nan, math.nan, math.nan)
SURE = DescriptorEstimate(2.0, 1.0, 3.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("estimate", "what"),
    [
        (Estimate({"OS": NO_NUMBER}, 0.1), "OS"),
        (Estimate({"OS": replace(SURE, hi=math.inf)}, 0.1), "OS"),
        (Estimate({"OS": replace(SURE, p=math.nan)}, 0.1), "OS"),
        (Estimate({"OS": SURE}, math.nan), "ood_score"),
    ],
)
def test_a_frame_whose_estimate_is_not_finite_is_set_aside(estimate: Estimate, what: str):
    watched, piped = Watched("Ni", 0.1, 0.5, 0.3).stop(), Piped()
    answers = piped.models[1].estimate

    def broken(spectra: NDArray[np.float32], extra_sd: object = None) -> Sequence[Estimate]:
        estimates = list(answers(spectra, extra_sd))
        if extra_sd is not None:
            estimates[1] = estimate
        return estimates

    piped.models[1].estimate = broken  # type: ignore[method-assign]
    piped.feed(watched.docs).check()
    assert piped.numbers() == [1, 3]
    (note,) = piped.events("quality")
    assert (note["reason"], note["detail"], note["frame_seq_num"]) == ("estimate not finite", what, 2)


def test_no_decision_on_a_stale_frame():
    piped = Piped(HIGH, controls=ControlSettings(max_age_s=5.0))
    watched = Watched("Ni", 0.9, 0.9, 0.9)
    with capture_logs() as logs:
        piped.pipeline.feed([Received(name, doc, time.monotonic() - 60) for name, doc in watched.docs])
        assert piped.numbers() == [1, 2, 3]
        assert piped.events("decisions") == []
        piped.feed(watched.frame(spectrum(0.9)).docs[-1:], watched.stop().docs[-1:]).check()
    assert [e["event"] for e in logs if "max_age_s" in e["event"]] == [
        "frames older than control.max_age_s: no rule decides on them"
    ]
    (decision, *_) = piped.events("decisions")
    assert json.loads(decision["evidence"])[0][0] == watched.docs[-2][1]["uid"]


def test_a_frame_that_another_agent_answered_is_not_decided_on_and_has_its_true_latency():
    piped = Piped(HIGH, controls=ControlSettings(max_age_s=1e8))
    with capture_logs() as logs:
        at = time.monotonic() - 60 - REPLAYED_S
        piped.pipeline.feed([Received(name, doc, at) for name, doc in Watched("Ni", 0.9, 0.9).docs])
    assert piped.events("decisions") == []
    assert [60e3 <= frame["latency_ms"] < 3600e3 for frame in piped.events("descriptors")] == [True, True]
    assert len([line for line in logs if "of another agent before: no rule decides on them" in line["event"]]) == 1


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_a_clock_that_jumps_costs_no_frame_and_no_later_decision(jump_s):
    watched, piped = Watched("Ni", *[0.1] * 5), Piped(HIGH)
    watched.at += jump_s
    for _ in range(5):
        watched.frame(spectrum(0.1))
    watched.at -= jump_s  # and is set right again
    for _ in range(10):
        watched.frame(spectrum(0.9))
    piped.feed(watched.stop().docs).check()
    assert piped.numbers() == list(range(1, 21))
    assert piped.events("decisions")


class WhiteLineArrays(WhiteLine):
    """The same model, with its answers as arrays."""

    def estimate(self, spectra: NDArray[np.float32], extra_sd: object = None) -> Sequence[Estimate]:
        found = super().estimate(spectra, extra_sd)
        return Estimates.of(found) if found else found


def told(piped: Piped) -> dict[str, list[Any]]:
    """Times and data of all Events by stream, those of pages too, without what differs from run to run."""
    streams = {doc["uid"]: doc["name"] for doc in piped.named("descriptor")}
    found: dict[str, list[Any]] = {"all": []}
    for name, doc in piped.documents:
        for event in [doc] if name == "event" else events_of(doc) if name == "event_page" else ():
            data = {k: v for k, v in event["data"].items() if k not in ("latency_ms", "id", "status_time")}
            stream = streams[event["descriptor"]]
            row = (event["seq_num"], event["time"], json.dumps(data, cls=event_model.NumpyEncoder))
            found.setdefault(stream, []).append(row)
            found["all"] += [(stream, *row)] if name == "event" else []
    return found


NEVER = HIGH.model_copy(update={"trigger": HIGH.trigger.model_copy(update={"above": 1e6})})
"""A rule for which each frame is published alone."""
RELATIVE_TO = {
    "nothing": lambda: RelativeQuantities(),
    "its first frame": lambda: RelativeQuantities(settings=RelativeSettings(change=("OS",), references=("first",))),
    "an anchor": lambda: RelativeQuantities([Anchor.model_validate({"frame": 3, "OS_mean": 1.0})]),
    "a rate that comes later": lambda: RelativeQuantities(settings=RelativeSettings(rate=("OS",), rate_frames=5)),
}


@pytest.mark.parametrize("kind", [WhiteLine, WhiteLineArrays])
@pytest.mark.parametrize("relative", RELATIVE_TO)
@pytest.mark.parametrize("rules", [(), (HIGH,)], ids=["no rule", "a rule"])
@pytest.mark.parametrize("pages", ["never", "always"])
def test_frames_published_together_are_those_published_one_by_one(kind, relative, rules, pages):
    watched = Watched("Co", *np.linspace(0.1, 0.9, 6))
    watched.frame(np.full_like(RELATIVE, np.nan)).frame(spectrum(1.2)).frame(0.3 + 0 * RELATIVE)
    for height in (0.5, 1.4, 0.6):
        watched.frame(spectrum(height))
    watched.stop()

    def piped(pages: Any, *rules: Rule) -> Piped:
        made = Piped(*rules, pages=pages, relative=RELATIVE_TO[relative]())
        made.models[:] = [kind("Co"), kind("Ni")]
        return made.feed(watched.docs)

    alone, together = piped("never", *(rules or [NEVER])), piped(pages, *rules)
    alone.check()
    together.check()
    expected, found = told(alone), told(together)
    assert found.pop("all") == expected.pop("all") or pages == "always"
    assert found == expected
    assert bool(together.named("event_page")) == (pages == "always")


def test_what_a_subscriber_does_to_a_page_changes_no_judgement(monkeypatch: pytest.MonkeyPatch):
    judged: list[tuple[float, float]] = []
    monkeypatch.setattr(
        Publication,
        "_judge",
        lambda self, answer, frame, estimate, *_: judged.append(
            (estimate.descriptors["OS"].mean, answer.quantities["edge_step"])
        ),
    )

    def change(name: str, doc: dict[str, Any]) -> None:
        for column in doc["data"].values() if name == "event_page" else ():
            if isinstance(column, np.ndarray):
                with pytest.raises(ValueError, match="read-only"):
                    column += 1000.0

    watched = Watched("Co", 0.1, 0.2, 0.3)
    for emit in (lambda name, doc: None, change):
        piped = Piped(HIGH, pages="always")
        piped.models[:] = [WhiteLineArrays("Co")]
        piped.pipeline._runs._emit = emit
        piped.feed(watched.docs[:3], watched.docs[3:])
    assert judged[3:] == judged[:3] != []


def test_frames_that_fail_together_are_published_once(monkeypatch: pytest.MonkeyPatch):
    counts: list[int] = []
    publish = AgentRun.frames

    def frames(run: AgentRun, rows: FrameRows, *, paged: bool = False) -> None:
        counts.append(len(rows.frames))
        if len(counts) == 2:
            raise ValueError("no room")
        publish(run, rows, paged=paged)

    monkeypatch.setattr(AgentRun, "frames", frames)
    piped = Piped(pages="always", relative=RELATIVE_TO["a rate that comes later"]())
    piped.models[:] = [WhiteLineArrays("Co")]
    piped.feed(Watched("Co", *np.linspace(0.1, 0.9, 9)).stop().docs).check()
    assert len(counts) > 2
    assert counts[0] > 1  # of two parts, the second failed
    assert [row[0] for row in told(piped)["descriptors"]] == list(range(1, 10))
    assert piped.events("quality") == []


class OnItsThread(WhiteLineArrays):
    """The same model, which notes the threads that call it, and may give up after some frames."""

    def __init__(self, absorber: str, abandoned: threading.Event | None = None) -> None:
        super().__init__(absorber)
        self.threads: list[str] = []
        self.abandoned = abandoned

    def estimate(self, spectra: NDArray[np.float32], extra_sd: object = None) -> Sequence[Estimate]:
        self.threads.append(threading.current_thread().name)
        if self.abandoned is not None:
            self.abandoned.set()
        return super().estimate(spectra, extra_sd)


@pytest.mark.parametrize("pages", ["never", "always"])
def test_frames_of_a_flood_are_answered_in_order_while_the_next_are_read(pages):
    heights = np.random.default_rng(0).uniform(0.1, 0.9, 150)
    watched = Watched("Co", *heights[:140]).frame(np.full_like(RELATIVE, np.nan))
    for height in heights[140:]:
        watched.frame(spectrum(height))
    watched.stop()
    together, alone = Piped(pages=pages), Piped()
    together.models[:], alone.models[:] = [model := OnItsThread("Co")], [OnItsThread("Co")]
    together.feed(watched.docs).check()
    alone.feed(*([document] for document in watched.docs)).check()
    assert any(name.startswith("xas-agent network") for name in model.threads)
    found, expected = told(together), told(alone)
    assert [row[:2] for row in found["descriptors"]] == [row[:2] for row in expected["descriptors"]]
    for one, other in zip(found["descriptors"], expected["descriptors"], strict=True):
        assert json.loads(one[2]) == pytest.approx(json.loads(other[2]), abs=1e-6)
    assert found["quality"] == expected["quality"]


def test_progress_before_a_decision_of_an_earlier_process_has_no_frame_that_is_not_published():
    def committed(progress: Any) -> None:
        waiting.append(len(piped.pipeline._serving.ahead))
        outcomes.append(len(progress.outcomes))

    waiting: list[int] = []
    outcomes: list[int] = []
    piped = Piped(controls=ControlSettings(enabled=True), control=Obedient(), committed=committed)
    piped.models[:] = [WhiteLineArrays("Co")]
    decision = Decision("an id", "rule", "pause", "because", "run", 100.0, 0.9, (), status="approved")
    piped.pipeline._requests.take_up(decision, 0.0)
    piped.feed(Watched("Co", *np.linspace(0.1, 0.9, 300)).stop().docs)
    assert len(waiting) > 1
    assert set(waiting) == {0}
    assert outcomes[0] == 128 + 1  # of the first Event, which is read alone, and of two groups of the next ones
    assert sum(outcomes) == 300
    piped.settle()


def test_what_rules_saw_of_a_sample_is_kept_when_its_run_ends_with_its_last_frames():
    """The windows of a sample go on in its next run, also after a restart."""
    documents = Watched("Co", *np.linspace(0.1, 0.9, 5), sample_name="cell").stop().docs
    high = Rule.model_validate(
        {"name": "high", "trigger": {"kind": "threshold", "quantity": "OS", "above": 9, "window_frames": 7}}
    )
    kept: list[Any] = []
    for count in (len(documents), 1):
        memory: dict[Any, Any] = {}
        piped = Piped(high, committed=lambda progress, memory=memory: memory.update(progress.memory))
        piped.feed(*(documents[k : k + count] for k in range(0, len(documents), count))).check()
        [(watches, *_)] = [state for key, state in memory.items() if "rules" in key]
        kept.append(json.loads(json.dumps(watches), parse_float=lambda digits: round(float(digits), 5)))
    assert kept[0] == kept[1]


def test_a_flood_that_is_given_up_counts_the_frames_that_are_not_answered():
    abandoned = threading.Event()
    watched, piped = Watched("Co", *np.linspace(0.1, 0.9, 200)), Piped(abandoned=abandoned)
    piped.models[:] = [OnItsThread("Co", abandoned)]
    piped.feed(watched.docs)
    answered, unread = len(piped.events("descriptors")), piped.pipeline.unread
    assert answered + piped.pipeline.unanswered + unread == 200
    assert piped.pipeline.unanswered >= 100


def test_a_flood_is_answered_while_the_interpreter_ends(monkeypatch: pytest.MonkeyPatch):
    watched, piped = Watched("Co", *np.linspace(0.1, 0.9, 200)).stop(), Piped()
    piped.models[:] = [WhiteLineArrays("Co")]

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    piped.feed(watched.docs).check()
    assert piped.numbers() == list(range(1, 201))
