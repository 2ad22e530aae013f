"""What a series adds to the estimates of its frames."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import capture_logs
from numpy.typing import NDArray
from watched import WhiteLine

from xas_agent.agent.relative import Anchor, RelativeQuantities, RelativeSettings, anchor_of
from xas_agent.agent.types import ConfigError, DescriptorEstimate, Estimate, Flag, Frame, RunInfo, Scan
from xas_agent.app.journal.records import packed, unpacked

MODEL = WhiteLine("Co")
UNITS = {"OS": "e"}
ENERGY = np.arange(3.0)
SLOPE, SCALE_SD = 0.9, 0.2 / 0.9**2
"""Of models whose card has none."""


class Fed:
    """A stage, and the frames that it was given."""

    def __init__(self, *anchors: dict[str, Any], **settings: Any) -> None:
        self.settings = RelativeSettings(**settings)
        self.anchors = [Anchor(**anchor) for anchor in anchors]
        self.stage = RelativeQuantities(self.anchors, self.settings, UNITS)
        self.at: dict[str, int] = {}

    def restart(self) -> None:
        """Go on in another process, with what the journal keeps."""
        memory = self.stage.memory("cell", MODEL) | self.stage.memory("other", MODEL)
        self.stage = RelativeQuantities(self.anchors, self.settings, UNITS)
        self.stage.restore({key: unpacked(packed(state)) for key, state in memory.items()})

    def frame(
        self,
        os: float,
        *,
        ood: float = 0.1,
        run: str = "run",
        sample: str = "cell",
        time: float | None = None,
        mu: Sequence[float] = (0.0, 1.0, 2.0),
        sd_frame: float = 0.0,
        **readings: float,
    ) -> Estimate:
        number = self.at[run] = self.at.get(run, 0) + 1
        frame = Frame(
            f"{run}/{number}",
            run,
            number,
            100.0 + number if time is None else time,
            ENERGY,
            ENERGY,
            element="Co",
            scan=Scan(sample, sample),
            readings=readings,
        )
        estimate = Estimate({"OS": DescriptorEstimate(os, os - 0.5, os + 0.5, sd_frame=sd_frame)}, ood)
        return self.stage(frame, MODEL, estimate, np.array(mu), 0.01)

    def skip(self, run: str = "run") -> None:
        """A frame that is set aside."""
        self.at[run] = self.at.get(run, 0) + 1


def anchored(estimate: Estimate) -> float | None:
    found = estimate.descriptors.get("OS_anchored")
    return None if found is None else round(found.mean, 6)


def test_without_anchors_and_settings_nothing_is_added():
    fed = Fed()
    assert set(fed.frame(3.2).descriptors) == {"OS"}
    assert set(fed.frame(3.2).descriptors) == {"OS"}


def test_the_first_frame_that_the_model_knows_anchors_the_series():
    fed = Fed({"frame": "first", "OS_mean": 3.0})
    assert anchored(fed.frame(9.0, ood=1.1)) is None
    assert anchored(fed.frame(9.0, ood=math.nan)) is None
    assert anchored(fed.frame(3.2)) == 3.0
    assert anchored(fed.frame(3.65)) == 3.5
    assert anchored(fed.frame(3.65, ood=2.0)) == 3.5  # the score is published beside it, and rules read it
    assert anchored(fed.frame(4.55)) == 4.5  # beyond all classes
    assert anchored(fed.frame(3.0, sample="other", run="next")) == 3.0  # a series of its own


def test_a_numbered_frame_counts_over_the_runs_and_over_frames_set_aside():
    fed = Fed({"frame": 4, "OS_mean": 3.0})
    fed.frame(2.0)
    fed.skip()
    assert anchored(fed.frame(2.0)) is None  # the third
    assert anchored(fed.frame(3.3, run="second")) == 3.0


def test_a_numbered_frame_that_did_not_come_is_reported_once_and_anchors_nothing():
    fed = Fed({"frame": 2, "OS_mean": 3.0})
    with capture_logs() as lines:
        fed.frame(2.0)
        fed.frame(2.0, ood=3.0)
        assert not lines
        assert anchored(fed.frame(2.0)) is None
        fed.frame(2.0)
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("anchor missed", "warning")
    assert "expected frame 2" in line["detail"]


def test_readings_average_the_first_frames_that_meet_them():
    fed = Fed({"voltage_below": 3.0, "OS_mean": 3.0})
    assert anchored(fed.frame(3.9, voltage=3.1)) is None
    assert anchored(fed.frame(3.9)) is None
    assert anchored(fed.frame(3.1, voltage=2.9)) == 3.0
    fed.frame(3.2, voltage=2.9)
    fed.frame(3.3, voltage=2.9)
    fed.frame(3.9, voltage=2.9)  # the fourth
    assert anchored(fed.frame(3.2, voltage=4.0)) == 3.0


def test_all_limits_must_hold():
    fed = Fed({"T_above": 20.0, "T_below": 30.0, "Ewe_V_above": 4.2, "OS_mean": 4.0, "frames": 1})
    for readings in ({"T": 25.0}, {"T": 25.0, "Ewe_V": 4.1}, {"T": 35.0, "Ewe_V": 4.3}, {"Ewe_V": 4.3}):
        assert anchored(fed.frame(3.9, **readings)) is None
    assert anchored(fed.frame(3.9, T=25.0, Ewe_V=4.3)) == 4.0


def test_an_anchor_of_another_absorber_is_left_out():
    fed = Fed({"frame": "first", "OS_mean": 3.0, "element": "Ni"}, {"frame": 1, "OS_mean": 3.0, "element": "Ni"})
    with capture_logs() as lines:
        assert [anchored(fed.frame(3.2)) for _ in range(3)] == [None] * 3
    assert not lines


def test_the_interval_is_that_of_the_frame_and_grows_with_the_distance():
    fed = Fed({"frame": "first", "OS_mean": 3.0})
    fed.frame(3.0)
    found = fed.frame(3.0, sd_frame=0.09).descriptors["OS_anchored"]
    assert found.sd_frame == pytest.approx(0.1)
    assert found.hi - found.mean == pytest.approx(1.6449 * math.hypot(0.02, 0.06, 0.06, 0.1), rel=1e-4)
    assert found.value is None
    far = fed.frame(4.0).descriptors["OS_anchored"]
    assert far.hi - far.mean == pytest.approx(1.6449 * math.hypot(0.02, 0.06, 0.06, SCALE_SD), rel=1e-4)


def test_anchors_that_disagree_are_flagged_and_logged_once():
    fed = Fed({"frame": 1, "OS_mean": 3.0}, {"frame": 2, "OS_mean": 4.0})
    with capture_logs() as lines:
        assert fed.frame(3.0).flags == ()
        narrow = fed.frame(3.0)
        fed.restart()
        assert fed.frame(3.0).flags == (Flag.ANCHORS_DISAGREE,)
    assert narrow.flags == (Flag.ANCHORS_DISAGREE,)
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["anchors disagree"]


def test_a_run_brings_its_own_anchors_once():
    fed = Fed({"frame": "first", "OS_mean": 3.0})
    fed.frame(3.2)
    run = RunInfo("second", {"xas_anchors": [{"frame": "first", "OS_mean": 2.0, "sd": 0.1}]}, scan=Scan("cell"))
    memory = fed.stage.begin(run)
    assert anchored(fed.frame(3.2, run="second")) == 2.0
    assert fed.stage.begin(run) == {}  # read again after a restart
    assert anchored(fed.frame(3.65, run="second")) == 2.5
    other = RelativeQuantities(fed.anchors, fed.settings, UNITS)
    other.restore({key: unpacked(packed(state)) for key, state in memory.items()})
    assert other.begin(run) == {}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("OS 3.0", "expected: a list"),
        ([{"OS_mean": 3.0}], "no condition"),
        ([{"frame": 1, "Os_mean": 3.0}], "found descriptor 'Os', expected a descriptor of a loaded model: OS"),
        ([{"frame": 1, "OS_mean": "high"}], "OS_mean"),
    ],
)
def test_anchors_of_a_run_that_cannot_be_read_are_logged_and_leave_the_configs(value: Any, said: str):
    fed, run = Fed({"frame": "first", "OS_mean": 3.0}), RunInfo("run", {"xas_anchors": value}, scan=Scan("cell"))
    with capture_logs() as lines:
        fed.stage.begin(run)
        fed.stage.begin(run)
    (line,) = lines
    assert line["log_level"] == "warning"
    assert said in line["detail"]
    assert anchored(fed.frame(3.2)) == 3.0


def test_the_newest_frame_is_anchored_while_the_series_goes_on():
    fed = Fed()
    assert anchored(fed.frame(3.2)) is None
    fed.stage.anchor(None, anchor_of({"OS": 3.0}, 0.02, UNITS))
    assert anchored(fed.frame(3.65)) == 3.5
    assert anchored(fed.frame(3.2, sample="other", run="next")) is None


@pytest.mark.parametrize("series", [None, "cell"])
def test_before_the_first_frame_and_after_an_unknown_one_the_next_is_anchored(series: str | None):
    fed = Fed()
    fed.stage.anchor(series, anchor_of({"OS": 3.0}, 0.02, UNITS))
    assert anchored(fed.frame(3.2)) == 3.0
    fed = Fed()
    fed.frame(3.0)
    fed.frame(5.0, ood=2.0)
    fed.stage.anchor(series, anchor_of({"OS": 3.0}, 0.02, UNITS))
    assert anchored(fed.frame(3.2)) == 3.0


@pytest.mark.parametrize("values", [{}, {"CN": 6.0}, {"OS": math.nan}])
def test_a_value_that_is_none_is_refused(values: Mapping[str, float]):
    with pytest.raises(ConfigError, match="found"):
        anchor_of(values, 0.02, UNITS)


@given(
    st.lists(st.floats(2.0, 4.0), min_size=2, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
    st.integers(1, 12),
)
def test_a_restart_changes_nothing(estimates: list[float], restarts: list[bool], live: int):
    settings = {"change": ("OS",), "rate": ("OS",), "rate_frames": 5, "references": ("first", 3)}
    anchors = {"frame": "first", "OS_mean": 3.0}, {"frame": 4, "OS_mean": 3.4}, {"voltage_above": 3.0, "OS_mean": 2.5}
    whole, parts = (Fed(*anchors, **settings) for _ in range(2))
    for k, (os, restart) in enumerate(zip(estimates, restarts, strict=False), start=1):
        given = {"os": os, "voltage": os, "mu": [os, 1.0, os**2], "sd_frame": 0.01}
        one, other = whole.frame(**given), parts.frame(**given)
        assert one == other
        if k == live:
            for fed in (whole, parts):
                fed.stage.anchor(None, anchor_of({"OS": 3.1}, 0.02, UNITS))
        if restart:
            parts.restart()


def test_a_change_is_that_since_the_first_known_frame():
    fed = Fed(change=["OS"])
    assert "OS_change" not in fed.frame(9.0, ood=2.0).descriptors
    assert fed.frame(3.0).descriptors["OS_change"].mean == 0.0
    found = fed.frame(3.45).descriptors["OS_change"]
    assert found.mean == pytest.approx(0.5)
    assert found.hi - found.mean == pytest.approx(1.6449 * 0.45 * SCALE_SD)


@given(st.floats(-2e-4, 2e-4), st.lists(st.floats(1.0, 500.0), min_size=7, max_size=20), st.data())
def test_a_rate_is_the_slope_of_the_latest_frames_in_any_order(slope: float, steps: list[float], data: st.DataObject):
    fed, times = Fed(rate=["OS"], rate_frames=7), np.cumsum(steps)
    order = [*range(len(times) - 7), *data.draw(st.permutations(range(len(times) - 7, len(times))))]
    found = [fed.frame(3.0 + slope * times[k], time=float(times[k])).descriptors for k in order]
    assert ["OS_rate" in descriptors for descriptors in found] == [k >= 6 for k in range(len(order))]
    assert found[-1]["OS_rate"].mean == pytest.approx(slope / SLOPE * 3600, abs=1e-6)


def test_a_rate_without_times_is_left_out():
    fed = Fed(rate=["OS"], rate_frames=5)
    assert not any("OS_rate" in fed.frame(3.0, time=time).descriptors for time in [math.nan] * 9 + [5.0] * 9)


@given(st.floats(-0.5, 1.5))
def test_a_mixture_of_two_references_has_its_position(share: float):
    first, second = np.array([0.0, 1.0, 0.5, 2.0]), np.array([1.0, 0.0, 0.7, 1.0])
    fed = Fed(references=["first", 2])
    begun = fed.frame(3.0, mu=first.tolist()).descriptors
    assert begun["distance"].mean == 0.0
    assert "position" not in begun
    assert fed.frame(3.0, mu=second.tolist()).descriptors["position"].mean == pytest.approx(1.0)
    found = fed.frame(3.0, mu=((1 - share) * first + share * second).tolist()).descriptors
    assert found["position"].mean == pytest.approx(share, abs=1e-12)
    assert found["position_misfit"].mean == pytest.approx(0.0, abs=1e-12)
    assert found["distance"].mean == pytest.approx(abs(share) * math.sqrt(np.mean((second - first) ** 2)))


def test_a_reference_of_a_file_and_a_scan_that_ends_early():
    spectrum: NDArray[Any] = np.array([0.0, 1.0, 2.0])
    stage = Fed(references=["file.xdi", "first"])
    stage.stage = RelativeQuantities((), stage.settings, UNITS, {"file.xdi": {MODEL.name: spectrum}})
    found = stage.frame(3.0, mu=[1.0, 1.0, math.nan]).descriptors
    assert found["distance"].mean == pytest.approx(math.sqrt(0.5))
    assert found["distance"].sd_frame == pytest.approx(0.01 / math.sqrt(2))


@pytest.mark.parametrize(
    ("anchor", "said"),
    [
        ({"OS_mean": 3.0}, "found no condition"),
        ({"frame": 1}, "found no known value"),
        ({"frame": 1, "voltage_below": 3.0, "OS_mean": 3.0}, "or two"),
        ({"frame": 1, "OS": 3.0}, "found key OS, expected <descriptor>_mean"),
        ({"V_above": 4.0, "V_below": 3.0, "OS_mean": 3.0}, "above 4 and below 3, which no frame is"),
    ],
)
def test_an_inconsistent_anchor_is_refused(anchor: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        Anchor(**anchor)
