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
    sure = norm.cdf((3.45 - outcome["OS"]) / 0.01) - norm.cdf((3.35 - outcome["OS"]) / 0.01)
    assert why == f"place {id}: {outcome['OS']:.3g} e, within 0.05 of the aim with a probability of {sure:.2f}"
    assert sure >= 0.9


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
    proposer.ingest([{"_id": 0, "OS": math.nan}, {"_id": 1, "OS": None}, {"_id": 2, "OS": (3.1, math.nan)}])
    assert [s["_id"] for s in proposer.suggest(9)] == [3]
    proposer.ingest([{"_id": 3, "OS": (3.2, math.inf)}])
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
    assert SampleProposer(rows, settings(aim=3.2, tolerance=0.1), file).state() == other.state()
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
    with pytest.raises(ValueError, match="finite number"):
        settings(aim=math.nan)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((6, 5), "found limits of CN from .* expected a lowest and a higher one"),
        ((5, 5), "found limits of CN from .* expected a lowest and a higher one"),
        ((math.nan, None), "limits.CN.0\n.*finite number"),
        ((None, math.nan), "limits.CN.1\n.*finite number"),
    ],
)
def test_limits_without_room_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        settings(limits={"CN": limits})


@pytest.mark.parametrize("count", [0, -1])
def test_fewer_than_one_suggestion_are_refused(count):
    with pytest.raises(ValueError, match=f"found num_points = {count}, expected 1 or more"):
        SampleProposer(samples(4), settings()).suggest(count)


def searched(quantity, error=0.0, count=40, **changes):
    """Search among samples 0 to count - 1 with a quantity of their number; return the proposer and why it ended."""
    rows = [{"place": k, "celsius": float(k)} for k in range(count)]
    proposer = SampleProposer(rows, settings(**{"tolerance": 0.02, "min_gain": 0.001} | changes))
    while not (stop := proposer.should_stop())[0]:
        [suggestion] = proposer.suggest()
        proposer.ingest([{"_id": suggestion["_id"], "OS": (quantity(suggestion["_id"]), error)}])
    return proposer, str(stop[1])


def test_a_value_within_the_tolerance_by_chance_does_not_end_the_search():
    proposer, why = searched(lambda k: 3.0 + 0.02 * k, 0.05, min_gain=0.0)
    assert len(proposer.state()["found"]) == 40
    expected = norm.cdf(0.02 / 0.05) - norm.cdf(-0.02 / 0.05)
    assert why == (
        f"all 40 samples are tried; place 20: 3.4 e, within 0.02 of the aim with a probability of {expected:.2f}"
    )


def test_a_repeated_sample_ends_the_search_once_its_mean_is_sure():
    proposer = SampleProposer(samples(), settings(tolerance=0.05))
    for repeat in range(1, 9):
        proposer.ingest([{"_id": 4, "OS": (3.4, 0.06)}])
        sure = 2 * norm.cdf(0.05 / 0.06 * math.sqrt(repeat)) - 1 >= 0.9
        assert proposer.should_stop()[0] == sure
    assert proposer.should_stop()[0]


def test_a_sure_sample_is_better_than_a_nearer_one_that_is_not():
    proposer = SampleProposer(samples(), settings(tolerance=0.05))
    proposer.ingest([{"_id": 4, "OS": (3.4, 0.035)}, {"_id": 5, "OS": (3.436, 0.01)}])
    assert proposer.get_best_points()[0][0] == 5
    assert str(proposer.should_stop()[1]).startswith("place 5")


def test_a_limit_must_be_kept_with_its_error_too():
    proposer = SampleProposer(samples(), settings(tolerance=0.05, limits={"CN": (5.5, None)}))
    proposer.ingest([{"_id": 4, "OS": 3.4, "CN": (5.6, 0.2)}])
    assert not proposer.should_stop()[0]
    proposer.ingest([{"_id": 5, "OS": 3.4, "CN": (5.9, 0.2)}])
    assert proposer.should_stop()[0]


@pytest.mark.parametrize(
    ("peak", "error", "aim"), [(10, 0.0, 3.4), (30, 0.0, "largest"), (30, 0.05, "largest"), (13, 0.01, 3.4)]
)
def test_first_values_that_hardly_differ_do_not_end_the_search(peak, error, aim):
    tolerance = 0.02 if aim == 3.4 else 0.0
    proposer, _ = searched(
        lambda k: 3.0 + 0.4 * math.exp(-(((k - peak) / 3.5) ** 2)) + 1e-4 * (k % 3),
        error,
        aim=aim,
        tolerance=tolerance,
    )
    assert proposer.get_best_points()[0][0] == peak


def test_a_flat_quantity_is_given_up_once_the_samples_lie_close():
    proposer, why = searched(lambda k: 3.0)
    assert why.startswith("the expected gain")
    assert 6 <= len(proposer.state()["found"]) <= 10


@pytest.mark.parametrize("id", [2, np.int64(2), "2"])
@pytest.mark.parametrize(
    "value", [3.1, np.float32(3.1), np.array(3.1), np.array([3.1]), [3.1, 0.0], np.array([3.1, 0])]
)
def test_ids_and_values_have_the_forms_that_documents_have(id, value):
    proposer = SampleProposer(samples(5), settings())
    proposer.ingest([{"_id": id, "OS": value}])
    assert proposer.state()["found"] == [[2, [{"OS": [pytest.approx(3.1), 0.0]}]]]


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"_id": True, "OS": 3.1}, "found _id True"),
        ({"_id": 0, "os": 3.1}, "found outcomes _id, os, expected OS too"),
        ({"_id": 0, "OS": "3.4"}, "found OS = '3.4', expected a number or a pair"),
        ({"_id": 0, "OS": [3.1, 0.1, 0.2]}, "expected a number or a pair"),
        ({"_id": 0, "OS": (3.1, -0.1)}, "expected a standard error of 0 or more"),
    ],
)
def test_points_that_cannot_be_read_are_refused(point, message):
    with pytest.raises(ValueError, match=message):
        SampleProposer(samples(5), settings()).ingest([point])


def test_a_checkpoint_of_another_search_is_refused(tmp_path):
    file = tmp_path / "search.json"
    rows = [{"place": np.int64(k), "celsius": np.float32(k)} for k in range(4)]
    proposer = SampleProposer(rows, settings(), file)
    measure(proposer, {"_id": 1}, rows)
    proposer.checkpoint()
    assert SampleProposer(rows, settings(), file).state()["found"] == proposer.state()["found"]
    for others, changes, message in (
        (rows[:3], {}, "found 4 candidates, expected 3"),
        (rows[::-1], {}, "found candidate 0 as"),
        ([{**row, "place": f"new{k}"} for k, row in enumerate(rows)], {}, "found candidate 0 as .* expected .*new0"),
        (rows, {"quantity": "CN"}, "found a search for OS by celsius, expected one for CN by celsius"),
        (rows, {"limits": {"CN": (5, None)}}, "found a search for OS by celsius, expected one for CN, OS by"),
    ):
        with pytest.raises(ValueError, match=rf"search\.json: {message}"):
            SampleProposer(others, settings(**changes), file)
        assert json.loads(file.read_text())["found"]


def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path):
    file, rows = tmp_path / "search.json", samples(4)
    proposer = SampleProposer(rows, settings(), file)
    measure(proposer, {"_id": 1}, rows)
    proposer.checkpoint()
    whole = file.read_text()
    foreign = [whole.replace("[[1, ", "[[7, "), whole.replace('"OS": [', '"CN": [')]
    for text in ("", whole[:-9], "[1]", '{"candidates": 4}', *foreign):
        assert text != whole
        file.write_text(text)
        with pytest.raises(ValueError, match=r"search\.json: "):
            SampleProposer(rows, settings(), file)
