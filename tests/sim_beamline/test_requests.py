"""What a control may ask of a running measurement: signals to set, frames to repeat, and a crew that is told."""

from typing import Any

import numpy as np
import pytest

from xas_agent.agent.types import Reply
from xas_agent.sim_beamline.beamline import ChangingBeamline, SimBeamline, measure_open_loop
from xas_agent.sim_beamline.experiments import (
    AlarmSettings,
    DamageSettings,
    MagazineSettings,
    ReductionSettings,
    TitrationSettings,
)
from xas_agent.sim_beamline.sample_changer import SampleChanger, magazine
from xas_agent.sim_beamline.settings import BeamlineSettings

Request = tuple[str, dict[str, Any]]


def measured(
    experiment: Any, frames: int, requests: dict[int, Request]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Reply]]:
    """Measure with requests after the frames of these numbers; return the frames, the true values and the replies."""
    shown: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    replies: list[Reply] = []

    def show(name: str, doc: dict[str, Any]) -> None:
        if name == "event" and "energy" in doc["data"]:
            shown.append(doc["data"])
            if len(shown) in requests:
                replies.append(beamline.obey(*requests[len(shown)]))

    def tell(name: str, doc: dict[str, Any]) -> None:
        if name == "event":
            truth.append(doc["data"])

    settings = BeamlineSettings(experiment=experiment, frames=frames, frame_period_s=0.0)
    beamline = SimBeamline(settings, [show], [tell])
    beamline.run()
    return shown, truth, replies


def test_set_holds_the_furnace_and_lets_it_go_on():
    hold, go = ({"signal": "furnace_ramp", "value": value} for value in (0, 6))
    shown, truth, replies = measured(ReductionSettings(), 8, {3: ("set", hold), 6: ("set", go)})
    assert [reply.status for reply in replies] == ["acknowledged"] * 2
    assert replies[0].reason == "furnace_ramp is 0 degC/min"
    changes = np.diff([row["temperature_c"] for row in truth[:8]])
    np.testing.assert_array_equal(changes > 0, [True, True, False, False, False, True, True])
    assert [frame["furnace_ramp"] for frame in shown] == [6, 6, 6, 0, 0, 0, 6, 6]


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ({"signal": "voltage", "value": 1}, "found signal 'voltage'; this experiment has: furnace_ramp"),
        ({"signal": "furnace_ramp", "value": 21}, "found 21 for furnace_ramp, expected 0…20 degC/min"),
        ({"signal": "furnace_ramp"}, "args of set: key value: missing"),
        ({"signal": "furnace_ramp", "value": "hot"}, "args of set: key value"),
    ],
)
def test_set_of_what_the_experiment_does_not_offer_is_rejected(args, reason):
    _, truth, (reply,) = measured(ReductionSettings(), 2, {1: ("set", args)})
    assert reply.status == "rejected"
    assert reason in reply.reason
    assert truth[1]["temperature_c"] > truth[0]["temperature_c"]


def test_set_brings_a_fresh_spot_into_the_beam():
    args = {"signal": "sample_position", "value": 2}
    _, truth, _ = measured(DamageSettings(dose_s=1e4), 4, {2: ("set", args)})
    assert [row["spot"] for row in truth[:4]] == [0, 0, 2, 2]
    assert truth[2]["damage_e"] == pytest.approx(truth[0]["damage_e"])


def test_repeat_frame_measures_the_same_state_longer_and_then_the_planned_ones():
    shown, truth, (reply,) = measured(TitrationSettings(), 4, {2: ("repeat_frame", {"count_factor": 9})})
    assert reply.status == "acknowledged"
    assert [row["state"] for row in truth[:5]] == [1, 2, 2, 3, 4]
    assert [row["frame"] for row in truth[:5]] == [1, 2, 3, 4, 5]
    seconds = np.array([row["seconds"] for row in truth[:5]])
    np.testing.assert_allclose(seconds / seconds[0], [1, 1, 9, 1, 1])
    assert truth[1]["x"] == truth[2]["x"]
    noise = [np.std(np.diff(np.log(shown[n]["I0"] / shown[n]["It"])[:80])) for n in (1, 2)]
    assert noise[0] / noise[1] == pytest.approx(3, rel=0.3)


def test_a_repeated_frame_that_is_repeated_counts_as_a_multiple_of_it_and_the_last_frame_can_be():
    requests = {n: ("repeat_frame", {"count_factor": 2}) for n in (2, 3)}
    _, truth, _ = measured(TitrationSettings(), 2, requests)
    seconds = np.array([row["seconds"] for row in truth[:4]])
    np.testing.assert_allclose(seconds / seconds[0], [1, 1, 2, 4])


@pytest.mark.parametrize(("late", "factors"), [(0, [1, 1, 4, 1]), (1, [1, 1, 1, 1])])
def test_only_the_last_frame_is_repeated(late, factors):
    """Asked for during the frame, or during the next one."""
    runs: list[str] = []
    replies: list[Reply] = []
    truth: list[dict[str, Any]] = []
    count = 0

    def show(name: str, doc: dict[str, Any]) -> None:
        nonlocal count
        if name == "descriptor":
            runs.append(doc["run_start"])
        if name == "event" and "energy" in doc["data"]:
            count += 1
            if count == 2 + late:
                args = {"count_factor": 4, "run": runs[-1], "frame": 2}
                replies.append(beamline.obey("repeat_frame", args))
                replies.append(beamline.obey("repeat_frame", {**args, "run": "another-run"}))

    def tell(name: str, doc: dict[str, Any]) -> None:
        if name == "event":
            truth.append(doc["data"])

    settings = BeamlineSettings(experiment=TitrationSettings(), frames=4, frame_period_s=0.0)
    beamline = SimBeamline(settings, [show], [tell])
    beamline.run()
    refusal = Reply("rejected", "frame 2 was asked for; the plan is at frame 3")
    assert replies[0] == (refusal if late else Reply("acknowledged", "repeating the last frame"))
    assert replies[1].status == "rejected"
    assert "a frame of run another- was asked for" in replies[1].reason
    seconds = np.array([row["seconds"] for row in truth[:4]])
    np.testing.assert_allclose(seconds / seconds[0], factors)


def test_a_repetition_holds_what_changes_the_sample():
    _, truth, _ = measured(ReductionSettings(duration_s=180.0), 3, {2: ("repeat_frame", {"count_factor": 3})})
    temperature = [row["temperature_c"] for row in truth[:4]]
    assert temperature[1] == temperature[2] < temperature[3]


def test_repeat_frame_with_a_wrong_factor_is_rejected():
    _, truth, (reply,) = measured(TitrationSettings(), 2, {1: ("repeat_frame", {"count_factor": 0})})
    assert (reply.status, "count_factor" in reply.reason, len(truth)) == ("rejected", True, 3)


def test_the_crew_is_told_and_removes_the_foil():
    experiment = AlarmSettings(first_frame=2, last_frame=9, crew_frames=1)
    _, truth, (reply,) = measured(experiment, 10, {3: ("notify", {"rule": "not an oxide"})})
    assert reply == Reply("acknowledged", "the crew is told")
    assert [row["frame"] for row in truth[:10] if row["foil"]] == [2, 3, 4]


def test_a_magazine_shares_its_frames_in_the_open_loop_and_ends_with_them_in_the_closed_one():
    starts: list[dict[str, Any]] = []
    settings = BeamlineSettings(experiment=MagazineSettings(compositions=(1.0, 0.5)), frames=7, frame_period_s=0.0)

    def note(name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            starts.append(doc)

    measure_open_loop(settings, [note])
    assert [start["sample_name"] for start in starts] == ["A1", "A2"]
    starts.clear()
    frames: list[str] = []
    changer = SampleChanger(magazine(2), 0.0)

    def show(name: str, doc: dict[str, Any]) -> None:
        note(name, doc)
        if name == "event":
            frames.append(starts[-1]["sample_name"])
            if len(frames) == 2:
                beamline.obey("stop", {})
        if name == "stop" and len(frames) == 2:
            changer_thread.start()

    changer_thread = changing(changer)
    beamline = ChangingBeamline(settings, changer, [show])
    beamline.run()
    changer_thread.join()
    assert frames == ["A1"] * 2 + ["A2"] * 5


def changing(changer: SampleChanger) -> Any:
    """A thread that brings the next sample into the beam, as a robot does."""
    import threading

    def work() -> None:
        halted = threading.Event()
        changer.do("unload", {}, halted)
        changer.do("load", {"sample": "next"}, halted)

    return threading.Thread(target=work)


@pytest.mark.parametrize("kind", [AlarmSettings, DamageSettings, ReductionSettings, TitrationSettings])
def test_an_experiment_goes_the_same_way_point_by_point(kind):
    ends = []
    for mode in ("fly", "step"):
        settings = BeamlineSettings(experiment=kind(), frames=2, frame_period_s=0.0, mode=mode)
        beamline = SimBeamline(settings, [])
        beamline.run()
        ends.append(beamline.x_true)
    assert ends[0] == pytest.approx(ends[1], abs=1e-3)
