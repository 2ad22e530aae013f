"""The search among samples: what it suggests, learns, says and keeps."""

import json
import math

import numpy as np
import pytest
from scipy.stats import norm

from xas_agent.agent.propose import SampleProposer, SampleSettings
from xas_agent.agent.propose.smooth import SmoothFunction, gain_above, gain_nearer, probability_between


def settings(**changes):
    return SampleSettings(
        **{"quantity": "OS", "aim": 3.4, "features": ("celsius",), "parameters": ("place",), "unit": "e"} | changes
    )


def samples(count=30):
    return [{"place": k, "celsius": c} for k, c in enumerate(np.linspace(300, 900, count))]


def truth(celsius):
    return 3.0 + 0.8 / (1 + math.exp(-(celsius - 560) / 60))


def measure(proposer, suggestion, rows, error=0.0):
    celsius = rows[suggestion["_id"]]["celsius"]
    proposer.ingest([{"_id": suggestion["_id"], "OS": (truth(celsius), error)}])


@pytest.mark.parametrize(("mean", "sd", "best"), [(3.2, 0.1, 0.3), (3.5, 0.4, 0.05), (2.0, 0.3, 0.2)])
def test_the_expected_gain_is_that_of_the_integral(mean, sd, best):
    y = np.linspace(mean - 8 * sd, mean + 8 * sd, 200_001)
    density = norm.pdf(y, mean, sd)
    nearer = np.trapezoid(np.maximum(best - np.abs(y - 3.4), 0) * density, y)
    above = np.trapezoid(np.maximum(y - best, 0) * density, y)
    assert gain_nearer(np.array([mean]), np.array([sd]), 3.4, best)[0] == pytest.approx(nearer, abs=1e-6)
    assert gain_above(np.array([mean]), np.array([sd]), best)[0] == pytest.approx(above, abs=1e-6)


def test_limits_are_kept_with_the_probability_of_a_gaussian():
    found = probability_between(np.array([1.0, 5.0]), np.array([0.5, 0.0]), 0.5, 2.0)
    assert found.tolist() == pytest.approx([norm.cdf(2) - norm.cdf(-1), 0.0])


def test_a_smooth_function_is_learnt_with_its_error_between_and_beyond_the_points():
    x = np.linspace(0, 1, 8)[:, None]
    function = SmoothFunction(x, np.sin(3 * x[:, 0]), np.zeros(8))
    mean, sd = function.predict(np.array([[0.45], [2.0]]))
    assert mean[0] == pytest.approx(math.sin(1.35), abs=0.02)
    assert sd[0] < 0.1 < sd[1]
    believed = function.believing(np.array([[2.0]]))
    again, narrower = believed.predict(np.array([[2.0]]))
    assert again[0] == pytest.approx(mean[1], abs=0.01)
    assert narrower[0] < sd[1] / 3


def test_the_wanted_sample_is_found_by_few_measurements_and_the_search_ends():
    rows = samples()
    proposer = SampleProposer(rows, settings(tolerance=0.05))
    count = 0
    while not proposer.should_stop()[0]:
        [suggestion] = proposer.suggest()
        measure(proposer, suggestion, rows, 0.01)
        count += 1
    assert count <= 7
    why = proposer.should_stop()[1]
    [(id, parameters, outcome)] = proposer.get_best_points()
    assert parameters == {"place": id}
    assert abs(outcome["OS"] - 3.4) <= 0.05
    assert why == f"place {id}: {outcome['OS']:.3g} e, within 0.05 of the aim"


def test_a_suggestion_says_what_it_is_expected_to_gain():
    rows = samples()
    proposer = SampleProposer(rows, settings())
    first = [proposer.suggest()[0] for _ in range(3)]
    assert [s["_id"] for s in first] == [14, 29, 0]
    assert first[0]["reason"] == ("place 14: in the middle of all, to learn how OS depends on the features")
    for suggestion in first:
        measure(proposer, suggestion, rows)
    [suggestion] = proposer.suggest()
    proposal = proposer.proposals[suggestion["_id"]]
    assert 0 < proposal.gain < abs(truth(rows[14]["celsius"]) - 3.4)
    assert suggestion["reason"] == (
        f"place {suggestion['_id']}: OS {proposal.expected:.3g} ± {proposal.sd:.2g} e expected, 3.4 e wanted; "
        f"best so far 3.5 e; expected gain {proposal.gain:.2g} e"
    )


def test_samples_suggested_together_differ_and_those_that_wait_are_not_suggested_again():
    rows = samples(12)
    proposer = SampleProposer(rows, settings())
    together = proposer.suggest(4)
    more = proposer.suggest(4)
    ids = [s["_id"] for s in together + more]
    assert len(set(ids)) == len(ids)
    for suggestion in together:
        measure(proposer, suggestion, rows)
    batch = [s["_id"] for s in proposer.suggest(3)]
    assert len(set(batch) | set(ids)) == len(batch) + len(ids)


@pytest.mark.parametrize(("aim", "place"), [("largest", 29), ("smallest", 0)])
def test_the_largest_or_smallest_is_found(aim, place):
    rows = samples()
    proposer = SampleProposer(rows, settings(aim=aim, min_gain=0.005))
    while not proposer.should_stop()[0]:
        measure(proposer, proposer.suggest()[0], rows)
    assert proposer.get_best_points()[0][0] == place
    assert "the expected gain" in str(proposer.should_stop()[1])
    assert len(proposer.state()["found"]) < 15


def test_a_limit_keeps_the_search_among_permitted_samples():
    rows = samples()
    proposer = SampleProposer(rows, settings(limits={"loss": (None, 0.2)}))
    tried: list[float] = []
    for _ in range(12):
        [suggestion] = proposer.suggest()
        celsius = rows[suggestion["_id"]]["celsius"]
        tried.append(celsius)
        loss = (celsius - 300) / 1000  # 0.2 at 500 °C, where OS is 3.2
        proposer.ingest([{"_id": suggestion["_id"], "OS": truth(celsius), "loss": loss}])
    [(best, _, outcome)] = proposer.get_best_points()
    permitted = [k for k, row in enumerate(rows) if row["celsius"] <= 500]
    assert best == permitted[-1]
    assert outcome["loss"] <= 0.2
    assert "the limits are kept with a probability of" in proposer.suggest()[0]["reason"]
    assert sum(c <= 520 for c in tried[3:]) >= 6


def test_what_has_no_number_is_not_learnt_and_not_suggested_again():
    rows = samples(4)
    proposer = SampleProposer(rows, settings())
    proposer.ingest([{"_id": 0, "OS": math.nan}, {"_id": 1}, {"_id": 2, "OS": (3.1, math.nan)}])
    assert [s["_id"] for s in proposer.suggest(9)] == [3]
    proposer.ingest([{"_id": 3, "OS": math.inf}])
    assert proposer.should_stop() == (True, "all 4 samples are tried")
    assert proposer.get_best_points()[0][0] == 2
    with pytest.raises(ValueError, match="all 4 are tried"):
        proposer.suggest()


def test_a_failed_measurement_is_tried_once_more():
    proposer = SampleProposer([{"place": 7, "celsius": 500.0}], settings())
    for _ in range(2):
        suggestions = proposer.suggest()
        assert [s["place"] for s in suggestions] == [7]
        proposer.register_failures(suggestions)
    assert proposer.should_stop()[0]


def test_one_candidate_equal_features_and_equal_values_are_no_obstacle():
    rows = [{"place": k, "celsius": 500.0} for k in range(6)]
    proposer = SampleProposer(rows, settings())
    for _ in range(6):
        [suggestion] = proposer.suggest()
        proposer.ingest([{"_id": suggestion["_id"], "OS": 3.0}])
    assert proposer.should_stop()[0]


def test_repeats_of_a_sample_are_averaged_and_points_of_other_features_are_learnt_from():
    proposer = SampleProposer(samples(5), settings())
    proposer.ingest([{"_id": 1, "OS": (3.0, 0.1)}, {"place": 1, "OS": (3.2, 0.1)}])
    assert proposer.get_best_points() == [(1, {"place": 1}, {"OS": pytest.approx(3.1)})]
    proposer.ingest([{"_id": "baseline", "celsius": 450.0, "OS": 3.1}])
    assert proposer.state()["others"] == [([450.0], {"OS": [3.1, 0.0]})]
    with pytest.raises(ValueError, match="expected a known _id"):
        proposer.ingest([{"_id": "baseline", "OS": 3.1}])


def test_a_person_suggests_by_place():
    proposer = SampleProposer(samples(5), settings())
    assert proposer.register_suggestions([{"place": 3}]) == [{"place": 3, "_id": 3}]
    with pytest.raises(ValueError, match="expected the parameters of a candidate"):
        proposer.register_suggestions([{"place": 9}])


def test_it_goes_on_from_its_checkpoint(tmp_path):
    rows, file = samples(), tmp_path / "search.json"
    proposer = SampleProposer(rows, settings(), file)
    for suggestion in proposer.suggest(4):
        measure(proposer, suggestion, rows)
    proposer.ingest([{"celsius": 450.0, "OS": (3.1, 0.02)}])
    proposer.register_failures([{"_id": 20}])
    proposer.checkpoint()
    other = SampleProposer(rows, settings(), file)
    assert json.loads(json.dumps(other.state())) == json.loads(json.dumps(proposer.state()))
    assert other.suggest(2) == proposer.suggest(2)
    with pytest.raises(ValueError, match="the state of 30 candidates, expected 4"):
        SampleProposer(rows[:4], settings(), file)
    with pytest.raises(ValueError, match="no file for the checkpoint"):
        SampleProposer(rows, settings()).checkpoint()


def test_wrong_candidates_are_named():
    with pytest.raises(ValueError, match="no candidates"):
        SampleProposer([], settings())
    with pytest.raises(ValueError, match=r"candidate 0.*expected celsius"):
        SampleProposer([{"place": 1}], settings())
    with pytest.raises(ValueError, match="expected finite numbers: celsius"):
        SampleProposer([{"place": 1, "celsius": math.nan}], settings())
    with pytest.raises(ValueError, match="expected a value as aim"):
        settings(aim="largest", tolerance=0.1)
