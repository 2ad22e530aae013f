import os
import signal
import threading
import time
from collections import Counter

import event_model
import numpy as np
import pytest
from bluesky.utils import Msg, RunEngineInterrupted
from deadline import wait_until
from logs import capture_logs
from streams import Frames
from valid import check_document

from xas_agent.agent.types.frame import Frame
from xas_agent.sim_beamline.beamline import SimBeamline
from xas_agent.sim_beamline.cathode import x_open_loop_end
from xas_agent.sim_beamline.engine import run_engine
from xas_agent.sim_beamline.experiments import ChargeSettings
from xas_agent.sim_beamline.optics import BeamSettings
from xas_agent.sim_beamline.plans import FLY_ENERGIES_EV, STEP_ENERGIES_EV
from xas_agent.sim_beamline.settings import BeamlineSettings

FAST = BeamlineSettings(frames=12, frame_period_s=0)
X_OPEN_LOOP_END = x_open_loop_end(ChargeSettings(), FAST.seed)


class Log:
    """Documents as they came; calls ``after_event`` with the number of measurement events so far."""

    def __init__(self, after_event=lambda n: None) -> None:
        self.documents: list[tuple[str, dict]] = []
        self._after_event = after_event

    def __call__(self, name, doc):
        self.documents.append((name, doc))
        if name == "event" and "energy" in doc["data"]:
            self._after_event(len(self.events("energy")))

    def all(self, name):
        return [doc for n, doc in self.documents if n == name]

    def events(self, field):
        return [doc for doc in self.all("event") if field in doc["data"]]


def measured(settings=FAST, after_event=lambda n: None):
    shown, truth = Log(after_event), Log()
    beamline = SimBeamline(settings, [shown], [truth])
    beamline.run()
    return beamline, shown, truth


def mu(doc):
    return np.log(np.asarray(doc["data"]["I0"]) / np.asarray(doc["data"]["It"]))


@pytest.fixture(scope="module")
def open_loop():
    return measured()


def test_documents_are_valid(open_loop):
    for log in open_loop[1:]:
        for name, doc in log.documents:
            check_document(name, event_model.sanitize_doc(doc))


def test_the_robot_loads_the_cell_first_and_names_the_sample(open_loop):
    robot, measurement = open_loop[1].all("start")
    assert robot["plan_name"] == "load_cell"
    assert robot["sample_uid"] == measurement["sample_uid"]
    loaded = open_loop[1].all("event")[0]["data"]
    assert set(loaded) == {"electrolyte_volume_ml", "electrode_mass_mg", "anneal_temperature_c"}


def test_a_fly_scan_is_an_event_per_spectrum(open_loop):
    _, shown, _ = open_loop
    start = shown.all("start")[1]
    assert {k: start[k] for k in ("element", "edge", "plan_name", "frames_planned", "scan_id")} == {
        "element": "Co", "edge": "K", "plan_name": "fly_xanes", "frames_planned": 12, "scan_id": 2,
    }  # fmt: skip
    frames = shown.events("energy")
    assert [f["seq_num"] for f in frames] == list(range(1, 13))
    for frame in frames:
        assert set(frame["data"]) == {"energy", "I0", "It", "Iref", "voltage", "temperature"}
        assert {frame["data"][k].shape for k in ("energy", "I0", "It", "Iref")} == {(341,)}
    assert all(doc["exit_status"] == "success" for doc in shown.all("stop"))


def test_noise_is_a_few_thousandths_of_the_edge_step():
    _, shown, _ = measured(
        BeamlineSettings(
            frame_period_s=0, beam=BeamSettings(glitch_probability=0), experiment=ChargeSettings(charge_x=1e-6)
        )
    )
    spectra = np.array([mu(frame) for frame in shown.events("energy")])
    step = spectra[:, 250:].mean() - spectra[:, :100].mean()
    assert 0.002 < spectra.std(axis=0, ddof=1).mean() / step < 0.005


def test_the_reference_channel_shows_the_monochromators_error():
    settings = FAST.model_copy(
        update={"beam": BeamSettings(mono_error_ev=2.0, mono_drift_ev=0.0, glitch_probability=0), "seed": 5}
    )
    beamline, shown, _ = measured(settings)
    assert abs(beamline.mono_error_ev) > 0.5
    foil = np.mean([np.log(f["data"]["It"] / f["data"]["Iref"]) for f in shown.events("energy")], axis=0)
    energy = shown.events("energy")[0]["data"]["energy"]
    edge = (energy > 7700) & (energy < 7714)  # the first inflection, before the second one at 7718 eV
    slope = np.clip(np.gradient(foil, energy)[edge], 0, None) ** 2
    assert np.average(energy[edge], weights=slope) - 7709 == pytest.approx(beamline.mono_error_ev, abs=0.4)


def test_open_loop_ends_where_the_chemistry_alone_says(open_loop):
    beamline, _, truth = open_loop
    assert beamline.x_true == pytest.approx(X_OPEN_LOOP_END, abs=1e-9)
    last = truth.all("event")[-1]["data"]
    assert (last["x"], last["stopped"], last["frame"]) == (beamline.x_true, False, 12)


def test_the_truth_is_nowhere_in_the_agents_stream(open_loop):
    _, shown, truth = open_loop
    (start,) = truth.all("start")
    assert start["purpose"] == "truth"
    assert start["measured_run"] == shown.all("start")[1]["uid"]
    assert len(truth.all("event")) == 12 + 1
    text = repr(shown.documents)
    for secret in ("mono_error_ev", "x_open_loop_end", "current_ma", "charge_mah", start["uid"]):
        assert secret not in text
    assert all(doc.get("purpose") != "truth" for doc in shown.all("start"))


def test_same_seed_same_data_and_another_seed_another():
    first, again, other = (
        measured(FAST.model_copy(update={"seed": seed, "frames": 3}))[1].events("energy") for seed in (1, 1, 2)
    )
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a["data"]["It"], b["data"]["It"])
        assert a["data"]["voltage"] == b["data"]["voltage"]
        assert np.any(a["data"]["It"] != c["data"]["It"])


def test_stop_freezes_the_chemistry_at_once_and_ends_the_run_with_success():
    replies = []

    def stop(n):
        if n == 5:
            replies.extend(beamline.obey("stop", {"reason": "OS 3.5 reached"}) for _ in range(2))
            replies.append(beamline.x_true)

    shown, truth = Log(stop), Log()
    beamline = SimBeamline(FAST, [shown], [truth])
    beamline.run()
    first, second, x = replies
    assert first.status == second.status == "acknowledged"
    assert second.reason == "already stopped"
    assert beamline.x_true == x
    assert len(shown.events("energy")) == 5
    stop_doc = shown.all("stop")[-1]
    assert (stop_doc["exit_status"], stop_doc["reason"]) == ("success", "OS 3.5 reached")
    last = truth.all("event")[-1]["data"]
    assert (last["x"], last["stopped"], last["current_ma"]) == (x, True, 0)


def test_paused_it_waits_without_current_and_ends_as_if_it_had_not():
    def pause(n):
        if n == 4:
            assert beamline.obey("pause", {}).status == "acknowledged"
            assert beamline.obey("pause", {}).reason == "already paused"
            threading.Thread(target=resume_later, args=(beamline.x_true,)).start()
        elif n == 5:
            went_on.set()

    def resume_later(x_paused):
        found.append((went_on.wait(0.3), beamline.x_true == x_paused))
        found.append(beamline.obey("resume", {}).status)

    went_on, found = threading.Event(), []
    shown = Log(pause)
    beamline = SimBeamline(FAST, [shown])
    beamline.run()
    assert found == [(False, True), "acknowledged"]
    assert len(shown.events("energy")) == 12
    assert beamline.x_true == pytest.approx(X_OPEN_LOOP_END, abs=1e-9)


def test_a_paused_measurement_can_be_stopped():
    def pause_and_stop(n):
        if n == 2:
            beamline.obey("pause", {})
            threading.Timer(0.1, beamline.obey, ("stop", {})).start()

    shown = Log(pause_and_stop)
    beamline = SimBeamline(FAST, [shown])
    beamline.run()
    assert len(shown.events("energy")) == 2
    assert shown.all("stop")[-1]["exit_status"] == "success"


def test_untimely_and_unknown_orders_are_rejected_with_a_reason():
    shown = Log(lambda n: replies.append(beamline.obey("explode", {})))
    replies: list = []
    beamline = SimBeamline(FAST.model_copy(update={"frames": 1}), [shown])
    early = beamline.obey("stop", {})
    beamline.run()
    late = beamline.obey("pause", {})
    assert [r.status for r in (early, late, *replies)] == ["rejected"] * 3
    assert "not started" in early.reason
    assert "ended" in late.reason
    assert "explode" in replies[0].reason


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_step_scan_is_an_event_per_energy(both_ways):
    settings = FAST.model_copy(update={"mode": "step", "frames": 2, "both_ways": both_ways})
    beamline, shown, truth = measured(settings)
    events = shown.events("energy")
    n = len(STEP_ENERGIES_EV)
    energies = np.array([e["data"]["energy"] for e in events])
    np.testing.assert_array_equal(energies[:n], STEP_ENERGIES_EV)
    np.testing.assert_array_equal(energies[n:], STEP_ENERGIES_EV[:: -1 if both_ways else 1])
    assert set(events[0]["data"]) == {"energy", "I0", "It", "Iref", "voltage", "temperature"}
    assert shown.all("start")[1]["plan_name"] == "step_xanes"
    assert beamline.x_true == pytest.approx(X_OPEN_LOOP_END, abs=1e-9)
    assert len(truth.all("event")) == 2 + 1


@pytest.mark.parametrize(("mode", "both_ways"), [("fly", False), ("step", False), ("step", True)])
def test_every_frame_measured_is_a_frame_assembled(mode, both_ways):
    _, shown, _ = measured(FAST.model_copy(update={"mode": mode, "frames": 3, "both_ways": both_ways}))
    assemble = Frames()
    found = [outcome for pair in shown.documents for outcome in assemble(*pair)] + assemble.flush()
    frames = [frame for frame in found if isinstance(frame, Frame)]
    assert len(frames) == len(found) == 3
    assert [frame.seq_num for frame in frames] == [1, 2, 3]
    assert [frame.direction for frame in frames] == ["rising", "falling" if both_ways else "rising", "rising"]
    for frame in frames:
        np.testing.assert_allclose(frame.energy, FLY_ENERGIES_EV if mode == "fly" else STEP_ENERGIES_EV)
        assert (frame.element, frame.edge, frame.points_missing) == ("Co", "K", 0)
        assert frame.reference is not None
        assert {"voltage", "temperature", "electrode_mass_mg"} <= set(frame.readings)


def test_a_step_scan_finishes_its_frame_when_stopped_with_x_frozen():
    x = []

    def stop(n):
        if n == 40:
            beamline.obey("stop", {})
            x.append(beamline.x_true)

    shown = Log(stop)
    beamline = SimBeamline(FAST.model_copy(update={"mode": "step", "frames": 3}), [shown])
    beamline.run()
    assert len(shown.events("energy")) == len(STEP_ENERGIES_EV)
    assert beamline.x_true == x[0]


def test_it_runs_off_the_main_thread_and_leaves_no_thread_behind():
    before = set(threading.enumerate())
    shown = Log()
    thread = threading.Thread(target=SimBeamline(FAST, [shown]).run)
    thread.start()
    thread.join(30)
    assert len(shown.events("energy")) == 12
    assert {t for t in threading.enumerate() if t.name == "bluesky-run-engine"} <= before


def test_a_sink_that_raises_does_not_end_the_run():
    def broken(name, doc):
        raise RuntimeError("disk full")

    shown = Log()
    with capture_logs() as logs:
        SimBeamline(FAST, [broken, shown]).run()
    assert len(shown.events("energy")) == 12
    assert Counter(entry["log_level"] for entry in logs) == {"error": 1}


def test_glitches_are_single_points():
    settings = BeamlineSettings(frame_period_s=0, frames=40, beam=BeamSettings(glitch_probability=1.0))
    _, shown, _ = measured(settings)
    kinks = [np.abs(np.diff(mu(f)[:120], 2)) for f in shown.events("energy")]
    assert 2 <= sum(k.max() > 0.05 for k in kinks) <= 30


def test_frames_keep_their_pace():
    began = time.monotonic()
    measured(FAST.model_copy(update={"frames": 4, "frame_period_s": 0.1}))
    assert time.monotonic() - began >= 0.4


def test_ctrl_c_closes_the_runs_with_success():
    _, shown, _ = measured(FAST, after_event=lambda n: os.kill(os.getpid(), signal.SIGINT) if n == 3 else None)
    assert shown.all("stop")[-1]["reason"] == "interrupted"
    assert shown.all("stop")[-1]["exit_status"] == "success"
    assert len(shown.events("energy")) < 12
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_that_comes_twice_at_once_aborts_nothing():
    times, asked, requests = [5.0, 5.15, 5.3], [], []

    def clock():
        asked.append(times[len(asked)])
        return asked[-1]

    def plan():
        for number in (1, 2, 3):
            assert len(asked) == number - 1
            os.kill(os.getpid(), signal.SIGINT)
            wait_until(lambda number=number: len(asked) == number)
            yield Msg("null")
        yield Msg("sleep", None, 60)

    with run_engine(Log(), lambda: requests.append("stop"), clock) as RE, pytest.raises(RunEngineInterrupted):
        RE(plan())
    assert asked == times
    assert requests == ["stop"]


def test_an_adaptive_scan_is_an_event_per_chosen_energy_and_one_per_spectrum():
    shown, truth = Log(), Log()
    settings = FAST.model_copy(update={"mode": "adaptive", "frames": 80})
    SimBeamline(settings, [shown], [truth], frames=3).run()
    reader = Frames()
    frames = [frame for document in shown.documents for frame in reader(*document)]
    assert [type(frame) for frame in frames] == [Frame] * 3
    names = {doc["uid"]: doc["name"] for doc in shown.all("descriptor")}
    points = [doc for doc in shown.all("event") if names[doc["descriptor"]] == "adaptive_points"]
    assert 3 * 40 < len(points) < 3 * 113
    times = [doc["data"]["time_s"] for doc in truth.events("time_s")]
    assert np.diff(times[:3]) == pytest.approx(ChargeSettings().duration_s / 80, rel=0.01)
    assert all(isinstance(frame, Frame) and frame.reference is not None for frame in frames)


def test_simulated_times_do_not_depend_on_the_machine():
    settings = FAST.model_copy(update={"clock": "simulated"})
    times, begun = [], time.time()
    for _ in range(2):
        _, shown, _ = measured(settings)
        start = shown.all("start")[-1]["time"]
        assert begun - 1 < start
        times.append([doc["time"] - start for doc in shown.events("energy")])
        assert shown.all("stop")[-1]["time"] >= shown.events("energy")[-1]["time"]
    assert times[0] == pytest.approx(times[1], abs=1e-5)
    assert np.ptp(np.diff(times[0])) < 1e-3
    assert times[0][-1] > 60  # while the simulation takes a moment
