"""Outcomes for optimisers, with the plans of bluesky-adaptive and blop, a RunEngine and an agent that listens."""

import importlib
import math
from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import numpy as np
import pytest
from bluesky import RunEngine
from ophyd import SoftPositioner
from spectrometer import CELSIUS, Spectrometer, lithium

from xas_agent import XASAgent
from xas_agent.adapters.ask_tell import AgentOutcomes, OutcomeError
from xas_agent.adapters.files import FileSink, FileSource
from xas_agent.adapters.zmq import ZMQEndpoint, ZMQSink, ZMQSource
from xas_agent.agent.propose import SampleProposer, SampleSettings

PACKAGES = ("bluesky_adaptive", "blop")


@pytest.fixture
def place() -> SoftPositioner:
    return SoftPositioner(name="place", init_pos=0)


@pytest.fixture
def agent() -> Iterator[XASAgent]:
    agent = XASAgent.from_config({"model": {"use": ["co-k"]}})
    yield agent
    agent.close()


@pytest.fixture
def engine(agent: XASAgent) -> RunEngine:
    RE = RunEngine({})
    RE.md["element"] = "Co"
    RE.subscribe(agent)
    return RE


def search(**changes: Any) -> SampleProposer:
    rows = [{"place": k, "celsius": float(c)} for k, c in enumerate(CELSIUS)]
    aims = {"quantity": "OS", "aim": 3.4, "features": ["celsius"], "parameters": ["place"], "tolerance": 0.05}
    return SampleProposer(rows, SampleSettings(**{**aims, **changes}))


def problem(package: str, place: SoftPositioner, device: Spectrometer, optimizer: Any, outcomes: Any) -> Any:
    protocols = pytest.importorskip(f"{package}.protocols")
    return protocols.OptimizationProblem(optimizer, [place], [device], outcomes)


@pytest.mark.parametrize("package", PACKAGES)
def test_both_parts_have_the_forms_that_the_packages_ask_for(package, agent):
    protocols = pytest.importorskip(f"{package}.protocols")
    proposer = search()
    for protocol in (
        "Optimizer", "CanRegisterSuggestions", "TrialFaultAware", "SupportsStoppingCriteria", "Checkpointable"
    ):  # fmt: skip
        assert isinstance(proposer, getattr(protocols, protocol))
    assert isinstance(AgentOutcomes.of(agent, {"OS": "OS"}), protocols.EvaluationFunction)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_plan_finds_the_wanted_sample_through_the_agent(package, place, agent, engine, caplog):
    plans = pytest.importorskip(f"{package}.plans")
    proposer, outcomes = search(), AgentOutcomes.of(agent, {"OS": "OS"}, errors="frame")
    documents: list[tuple[str, dict[str, Any]]] = []
    engine(
        plans.optimize(problem(package, place, Spectrometer(place), proposer, outcomes), iterations=None),
        lambda *document: documents.append(document),
    )
    [(id, parameters, outcome)] = proposer.get_best_points()
    assert parameters == {"place": id}
    assert outcome["OS"] == pytest.approx(3.4, abs=0.05)
    assert outcome["OS"] == pytest.approx(4 - lithium(CELSIUS[id]), abs=0.15)
    assert len(proposer.state()["found"]) <= 8
    reasons = [doc["data"]["reason"] for name, doc in documents if name == "event" and "reason" in doc["data"]]
    assert any("expected gain" in reason for reason in reasons)
    assert agent.wait(30)
    assert "stream not read" not in caplog.text  # that of the optimisation holds no spectra


@pytest.mark.parametrize("package", PACKAGES)
def test_frames_belong_to_suggestions_in_the_order_of_acquisition(package, place, agent, engine):
    plans = pytest.importorskip(f"{package}.plans")
    place.set(19)
    outcomes = AgentOutcomes.of(agent, {"OS": "OS", "distance": lambda q: abs(q["OS"] - 3.4)})
    heard: list[dict[str, Any]] = []

    class Asked(SampleProposer):
        def ingest(self, points):
            heard.extend(points)

    asked = Asked([{"place": float(k), "celsius": float(c)} for k, c in enumerate(CELSIUS)], search().settings)
    started: list[dict[str, Any]] = []
    device = Spectrometer(place)
    wanted = [{"place": 1.0}, {"place": 18.0}, {"place": 8.0}]
    engine(
        plans.sample_suggestions(problem(package, place, device, asked, outcomes), wanted),
        {"start": lambda _, doc: started.append(doc)},
    )
    assert [point["_id"] for point in heard] == [1, 18, 8]
    assert started[1]["blop_acquisition_order"] == [18, 8, 1]
    for point in heard:
        assert point["OS"] == pytest.approx(4 - lithium(CELSIUS[point["_id"]]), abs=0.15)
        assert point["distance"] == pytest.approx(abs(point["OS"] - 3.4))


def test_an_acquisition_within_the_run_of_the_optimisation_is_evaluated_while_it_goes_on(place, agent, engine):
    plans = pytest.importorskip("bluesky_adaptive.plans")
    proposer, outcomes = search(), AgentOutcomes.of(agent, {"OS": "OS"})
    tried = problem("bluesky_adaptive", place, Spectrometer(place), proposer, outcomes)
    engine(plans.optimize_in_run(tried, iterations=2, n_points=2))
    found = dict(proposer.state()["found"])
    assert len(found) == 4
    for k, [outcome] in found.items():
        assert outcome["OS"][0] == pytest.approx(4 - lithium(CELSIUS[k]), abs=0.15)


def within_a_run(place: SoftPositioner, device: Spectrometer, steps: list[Any], *, recorded: bool = True) -> Any:
    """Yield a plan of one run: it measures at the numbers, and calls the functions."""
    from bluesky import plan_stubs as bps
    from bluesky import preprocessors as bpp

    @bpp.run_decorator()
    def run() -> Any:
        for step in steps:
            if callable(step):
                step()
            else:
                yield from bps.mv(place, step)
                yield from bps.trigger_and_read([device, place] if recorded else [device])

    return run()


def asks(outcomes: AgentOutcomes, found: list[dict[str, Any]], *places: int) -> Any:
    suggestions = [{"_id": f"s{place}", "place": place} for place in places]
    return lambda: found.extend(outcomes([s["_id"] for s in suggestions], suggestions))


def test_frames_that_nobody_asked_about_are_left_out_by_the_places_recorded_with_them(place, agent, engine):
    outcomes, device, found = AgentOutcomes.of(agent, {"OS": "OS"}), Spectrometer(place), list[dict[str, Any]]()
    late, other = AgentOutcomes.of(agent, {"OS": "OS"}), list[dict[str, Any]]()
    device.broken = {3}
    first_look, after_a_failure = [0, 15, asks(outcomes, found, 15)], [3, 7, 9, asks(outcomes, found, 9)]
    together = [18, 2, 12, asks(outcomes, found, 2, 12)]
    engine(within_a_run(place, device, [*first_look, *after_a_failure, *together, 5, asks(late, other, 5)]))
    assert [point["_id"] for point in found + other] == ["s15", "s9", "s2", "s12", "s5"]
    for point in found + other:
        assert point["OS"] == pytest.approx(4 - lithium(CELSIUS[int(point["_id"][1:])]), abs=0.15)


def test_frames_in_a_longer_run_without_places_are_refused_if_their_number_is_not_that_expected(place, agent, engine):
    outcomes, device, found = AgentOutcomes.of(agent, {"OS": "OS"}), Spectrometer(place), list[dict[str, Any]]()

    def refused() -> None:
        with pytest.raises(
            OutcomeError, match=r"found frames 1, 2 of an open run, expected 1 for suggestions \['s15'\]"
        ):
            asks(outcomes, found, 15)()

    steps = [0, 15, refused, 15, asks(outcomes, found, 15), 2, asks(outcomes, found, 2)]
    engine(within_a_run(place, device, steps, recorded=False))
    assert [point["_id"] for point in found] == ["s15", "s2"]
    for point in found:
        assert point["OS"] == pytest.approx(4 - lithium(CELSIUS[int(point["_id"][1:])]), abs=0.15)


def test_a_frame_without_its_place_of_an_agent_elsewhere_is_not_attributed(place, agent, engine):
    outcomes = AgentOutcomes({"OS": "OS"})  # knows the agent by its documents alone
    agent.subscribe(outcomes.hear)
    device, found = Spectrometer(place), list[dict[str, Any]]()
    with pytest.raises(OutcomeError, match=r"found frames 1 of an open run.*Record place with each frame"):
        engine(within_a_run(place, device, [0, asks(outcomes, found, 0)], recorded=False))
    engine(within_a_run(place, device, [0, 15, asks(outcomes, found, 15)]))
    assert found[0]["OS"] == pytest.approx(4 - lithium(CELSIUS[15]), abs=0.15)


def test_frames_set_aside_and_unknown_to_the_model_end_the_plan_and_say_why(place, agent, engine):
    plans = pytest.importorskip("bluesky_adaptive.plans")
    device, proposer = Spectrometer(place), search()
    outcomes = AgentOutcomes.of(agent, {"OS": "OS"})
    device.broken, device.metal = {9}, {19}
    with pytest.raises(OutcomeError, match=r"suggestion 9: frame 1: It not positive"):
        engine(plans.optimize(problem("bluesky_adaptive", place, device, proposer, outcomes)))
    assert proposer.state()["failures"] == [(9, 1)]
    with pytest.raises(OutcomeError, match=r"suggestion 19: frame 1: out of distribution, score [\d.]+, at most 1"):
        engine(
            plans.sample_suggestions(problem("bluesky_adaptive", place, device, proposer, outcomes), [{"place": 19}])
        )


def test_a_search_may_go_on_without_the_samples_that_failed(place, agent, engine, caplog):
    plans = pytest.importorskip("bluesky_adaptive.plans")
    device, proposer = Spectrometer(place), search()
    device.broken, device.metal = {9}, {19}
    outcomes = AgentOutcomes.of(agent, {"OS": "OS"}, failed="nan")
    engine(plans.optimize(problem("bluesky_adaptive", place, device, proposer, outcomes), iterations=None))
    assert {k for k, _ in proposer.state()["failures"]} == {9, 19}
    assert proposer.get_best_points()[0][2]["OS"] == pytest.approx(3.4, abs=0.05)
    assert "It not positive" in caplog.text


def count(device: Any, num: int, **md: Any) -> Any:
    from bluesky.plans import count

    return count([device], num, md=md)


def test_frames_of_a_suggestion_are_averaged_with_their_errors(place, agent, engine):
    device = Spectrometer(place, noise=0.02)
    of = {"OS": "OS", "half": lambda q: q["OS_half_width"], "gap": lambda q: 2 * abs(q["OS_mean"] - 10)}
    by_frame, by_all, plain = (
        AgentOutcomes.of(agent, of, frames=4, errors=errors) for errors in ("frame", "all", "none")
    )
    frames: list[dict[str, Any]] = []
    agent.subscribe(lambda name, doc: frames.append(doc["data"]) if name == "event" and "OS" in doc["data"] else None)
    [uid] = engine(count(device, 4))
    [bare], [frame], [whole] = (
        evaluate(uid=uid, suggestions=[{"_id": "a"}]) for evaluate in (plain, by_frame, by_all)
    )
    agent.wait(30)
    mean = np.mean([data["OS_mean"] for data in frames])
    assert bare["OS"] == pytest.approx(mean)
    assert bare["gap"] == pytest.approx(2 * (10 - mean))
    scatter = np.sqrt(np.sum([data["OS_sd_frame"] ** 2 for data in frames])) / 4
    assert frame["OS"] == pytest.approx((mean, scatter))
    assert frame["gap"] == pytest.approx((bare["gap"], 2 * scatter))
    assert frame["half"][1] == 0
    interval = np.mean([data["OS_hi"] - data["OS_lo"] for data in frames]) / (2 * 1.6448536)
    assert scatter < whole["OS"][1] < interval
    assert whole["OS"][1] == pytest.approx(np.sqrt(interval**2 - 4 * scatter**2 + scatter**2), rel=0.02)


def test_what_cannot_be_told_apart_is_refused(place, agent, engine):
    outcomes = AgentOutcomes.of(agent, {"OS": "OS"}, timeout_s=20)
    [uid] = engine(count(Spectrometer(place), 2))
    with pytest.raises(OutcomeError, match="found no blop_acquisition_order"):
        outcomes(uid, [{"_id": 0}, {"_id": 1}])
    with pytest.raises(OutcomeError, match="found 2 answered frames, expected 1 frames"):
        outcomes(uid, [{"_id": 0}])
    [uid] = engine(count(Spectrometer(place), 2, blop_acquisition_order=["b", "a"]))
    with pytest.raises(OutcomeError, match=r"found suggestions \['a', 'c'\], expected those .* \['b', 'a'\]"):
        outcomes(uid, [{"_id": "a"}, {"_id": "c"}])
    with pytest.raises(OutcomeError, match=r"found suggestions \['a', 'a'\], expected those that were acquired"):
        outcomes(uid, [{"_id": "a"}, {"_id": "a"}])
    assert [o["_id"] for o in outcomes(uid, [{"_id": "a"}, {"_id": "b"}])] == ["a", "b"]
    [uid] = engine(count(Spectrometer(place), 2, blop_acquisition_order=["a", "a"]))
    with pytest.raises(OutcomeError, match=r"order \['a', 'a'\] \(blop_acquisition_order\) with an id twice"):
        outcomes(uid, [{"_id": "a"}, {"_id": "b"}])


@pytest.mark.parametrize(("errors", "missing"), [("none", math.nan), ("frame", (math.nan, math.nan))])
def test_an_objective_without_a_number_is_a_failure(place, agent, engine, errors, missing, caplog):
    of = {"none": lambda _: math.nan, "OS": "OS"}
    strict, lenient = (AgentOutcomes.of(agent, of, errors=errors, failed=failed) for failed in ("raise", "nan"))
    [uid] = engine(count(Spectrometer(place), 1))
    with pytest.raises(OutcomeError, match=r"suggestion 0: found none = .*nan.*, expected finite numbers"):
        strict(uid, [{"_id": 0}])
    [found] = lenient(uid, [{"_id": 0}])
    assert found["none"] == pytest.approx(missing, nan_ok=True)
    assert np.isfinite(found["OS"]).all()
    assert "found none = " in caplog.text


def test_a_quantity_that_the_frames_lack_is_named_with_similar_ones(place, agent, engine):
    outcomes = AgentOutcomes.of(agent, {"OS": "OS_half_widht"})
    [uid] = engine(count(Spectrometer(place), 1))
    with pytest.raises(
        OutcomeError, match=r"found quantity 'OS_half_widht', which the frames do not have; similar: OS_half_width"
    ):
        outcomes(uid, [{"_id": 0}])


def test_a_run_that_nobody_answers_ends_at_the_timeout_and_says_what_was_heard(agent):
    outcomes = AgentOutcomes.of(agent, {"OS": "OS"}, timeout_s=0.05)
    with pytest.raises(TimeoutError, match=r"run u within 0.05 s; the newest heard: nothing"):
        outcomes("u", [{"_id": 0}])


def test_an_agent_in_another_place_is_heard_over_zmq(place, agent, engine):
    with closing(ZMQSink(ZMQEndpoint(address="127.0.0.1:0", bind=True))) as sink:
        sink.connect()
        with closing(ZMQSource(ZMQEndpoint(address=sink.address))) as source:
            source.connect()
            assert sink.wait_for_subscriber(30)
            agent.subscribe(sink)
            outcomes = AgentOutcomes({"OS": "OS"}).listen(source)
            [uid] = engine(count(Spectrometer(place), 2, blop_acquisition_order=[5, 4]))
            assert [o["_id"] for o in outcomes(uid, [{"_id": 4}, {"_id": 5}])] == [4, 5]
        agent.close()  # before the sink, to which it sends


def test_a_recording_of_an_agent_is_evaluated_too(place, agent, engine, tmp_path):
    with closing(FileSink(tmp_path / "documents.jsonl")) as sink:
        agent.subscribe(sink)
        [uid] = engine(count(Spectrometer(place), 1))
        assert agent.wait(60)
    outcomes = AgentOutcomes({"OS": "OS"}, timeout_s=20).listen(FileSource(tmp_path / "documents.jsonl"))
    [found] = outcomes(uid, [{"_id": 0}])
    assert found["OS"] == pytest.approx(4 - lithium(CELSIUS[0]), abs=0.15)
    with pytest.raises(OutcomeError, match="no outcomes for run later: the agent's documents have ended"):
        outcomes("later", [{"_id": 0}])


def test_the_packages_are_not_imported():
    module = importlib.import_module("xas_agent.adapters.ask_tell")
    assert not {"bluesky_adaptive", "blop"} & {*vars(module)}


@pytest.mark.parametrize(
    "wrong", [{"outcomes": {}}, {"outcomes": {"_id": "OS"}}, {"outcomes": {"OS": "OS"}, "frames": 0}]
)
def test_wrong_outcomes_are_refused(wrong):
    with pytest.raises(ValueError, match="expected names other than _id"):
        AgentOutcomes(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"errors": "fame"}, "found errors = 'fame', expected one of none, frame, all"),
        ({"failed": "Nan"}, "found failed = 'Nan', expected one of raise, nan"),
        ({"within": math.nan}, "found within = nan, expected 0 or more"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        AgentOutcomes({"OS": "OS"}, **wrong)


def test_anchored_and_relative_values_of_a_sample_are_outcomes_too(place):
    config = {
        "model": {"use": ["co-k"]},
        "anchors": [{"frame": "first", "OS_mean": 3.0}],
        "relative": {"change": ["OS"]},
    }
    with XASAgent.from_config(config) as agent:
        RE = RunEngine({"element": "Co", "sample_name": "one"})
        RE.subscribe(agent)
        of = {"OS": "OS", "anchored": "OS_anchored", "change": "OS_change", "width": "OS_anchored_half_width"}
        outcomes = AgentOutcomes.of(agent, of, errors="all")
        found: list[dict[str, Any]] = []
        for position in (0, 10):
            place.set(position)
            [uid] = cast("tuple[str, ...]", RE(count(Spectrometer(place), 1)))
            found += outcomes(uid, [{"_id": position}])
    first, second = found
    assert first["anchored"][0] == pytest.approx(3.0, abs=0.01)
    course = second["OS"][0] - first["OS"][0]
    assert 0.9 * course < second["change"][0] < 1.5 * course
    assert second["anchored"][0] == pytest.approx(3.0 + second["change"][0], abs=0.03)
    assert second["anchored"][1] == pytest.approx(second["width"][0] / 1.6449, rel=0.01)
    assert second["anchored"][1] < second["OS"][1]
