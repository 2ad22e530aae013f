"""Test the answers to frames from streams, files and computations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import capture_logs

from xas_agent.agent.estimate.energy_uncertainty import EnergyUncertainty
from xas_agent.agent.estimate.serve import Answer, FrameServer
from xas_agent.agent.spectra.glitches import GlitchSettings
from xas_agent.agent.spectra.series import SeriesAlignment
from xas_agent.agent.spectra.settings import AlignmentSettings
from xas_agent.agent.spectra.theory import TheoryAlignment
from xas_agent.agent.types import Reach
from xas_agent.agent.types.edge import Edge
from xas_agent.agent.types.estimate import DescriptorEstimate, Estimate
from xas_agent.agent.types.frame import Frame
from xas_agent.agent.types.grid import Grid
from xas_agent.agent.types.reasons import Flag, Reason

EDGES = {"Co": 7709.0, "Ni": 8333.0}
FAILING_HEIGHT = 2.5  # a white line of this height makes the model fail


@dataclass
class WhiteLine:
    """A model with OS as the mean over the first 15 eV above the edge, which fails on high white lines."""

    absorber: str = "Ni"
    edge_name: str = "K"
    sha256: str = ""
    grid: Grid = Grid(-9, 60, 1, (-9, -6), (30, 60))  # noqa: RUF009
    units: dict[str, str] = field(default_factory=dict)
    single_site: frozenset[str] = frozenset()
    hardly_known: frozenset[str] = frozenset()
    reach: dict[str, Reach] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.absorber}-k".lower()

    @property
    def edge(self) -> Edge:
        return Edge(EDGES[self.absorber], offset_sd_ev=0.5)

    def estimate(self, spectra, extra_sd=None):
        if extra_sd is not None:  # otherwise the call is for slopes
            self.batches.append(len(spectra))
        if len(spectra) and spectra.max() > FAILING_HEIGHT:
            raise FloatingPointError("white line too high")
        sd = np.zeros(len(spectra)) if extra_sd is None else extra_sd["OS"]
        means = spectra[:, self.grid.window((0, 15))].mean(1, dtype=np.float64)
        flags = (Flag.OUT_OF_DISTRIBUTION,)
        return [Estimate({"OS": DescriptorEstimate(m, m - s, m + s)}, 2.0, flags) for m, s in zip(means, sd)]  # noqa: B905


def frame(number: int, element: str = "Ni", start: float = -150.0, height: float = 0.3, **fields) -> Frame:
    """Return a scan with noise seeded by ``number``; a ``start`` of −12 eV leaves no pre-edge."""
    x = np.concatenate([np.arange(start, -30, 4.0), np.arange(max(start, -30.0), 60, 0.5), np.arange(60.0, 400, 3.0)])
    rise = 0.5 + np.tanh((x - 6) / 2.5) / 2
    mu = 0.4 + 0.8 * rise * (1 + height * np.exp(-(((x - 10) / 5) ** 2))) - 3e-4 * x
    mu += 0.002 * np.random.default_rng(number).normal(size=len(x))
    foil = 0.5 + np.arctan((x - 0.3 - 0.01 * number) / 1.2) / np.pi
    defaults = {"run_uid": "run", "seq_num": number, "time": 60.0 * number, "reference": foil, "element": element}
    return Frame(uid=str(number), energy=EDGES.get(element, 8333.0) + x, mu=mu, **(defaults | fields))


def server(**alignment) -> FrameServer:
    align = SeriesAlignment(AlignmentSettings(**alignment))
    return FrameServer([WhiteLine("Ni"), WhiteLine("Co")], align, EnergyUncertainty(every=3))


def by_uid(answers: Iterator[Answer]) -> dict[str, Answer]:
    answer_by_uid: dict[str, Answer] = {}
    for answer in answers:
        assert answer.frame.uid not in answer_by_uid
        answer_by_uid[answer.frame.uid] = answer
    return answer_by_uid


ENDS = ("mean", "lo", "hi", "sd_frame")


def assert_same(a: Answer, b: Answer, ends: Sequence[str] = ENDS) -> None:
    assert (a.refusal is None) == (b.refusal is None)
    if a.refusal is not None and b.refusal is not None:
        assert a.refusal.reason is b.refusal.reason
        return
    np.testing.assert_allclose(a.mu, b.mu, atol=1e-6)
    assert a.flags == b.flags
    for name, value in a.quantities.items():
        assert value == pytest.approx(b.quantities[name], abs=1e-6, nan_ok=True), name
    assert a.estimate is not None
    assert b.estimate is not None
    for end in ends:
        value_a, value_b = (getattr(e.descriptors["OS"], end) for e in (a.estimate, b.estimate))
        assert value_a == pytest.approx(value_b, abs=1e-6)


KINDS = st.sampled_from(["Ni", "Co", "Fe", "short", "poison", "no foil"])


def make_frames(kinds: Sequence[str]) -> list[Frame]:
    frames: list[Frame] = []
    for k, kind in enumerate(kinds):
        options = {"short": {"start": -12.0}, "poison": {"height": 4.0}, "no foil": {"reference": None}}.get(kind, {})
        frames.append(frame(k, kind if kind in ("Co", "Fe") else "Ni", **options))
    return frames


@given(st.lists(KINDS, min_size=1, max_size=12), st.data(), st.sampled_from([None, GlitchSettings()]))
@settings(max_examples=25, deadline=None)
def test_stream_and_files_get_the_same_answers(kinds, data, glitches):
    """A stream arrives in order, in batches of any size; files arrive together in any order, with their times."""
    frames = make_frames(kinds)
    live, batches = server(glitches=glitches), []
    while sum(map(len, batches)) < len(frames):
        done = sum(map(len, batches))
        batches.append(frames[done : done + data.draw(st.integers(1, 5))])
    shuffled = [frames[k] for k in data.draw(st.permutations(range(len(frames))))]
    with capture_logs():  # keeps tracebacks out of the output
        streamed = by_uid(answer for batch in batches for answer in live(batch))
        filed = by_uid(server(glitches=glitches)(shuffled, by_time=True))
    assert streamed.keys() == filed.keys() == {f.uid for f in frames}
    # Frames of a failed batch are counted again, and slopes are then taken at other frames.
    ends = ("mean",) if "poison" in kinds else ENDS
    for uid, answer in streamed.items():
        assert_same(answer, filed[uid], ends)
    for f, kind in zip(frames, kinds, strict=True):
        refusal = streamed[f.uid].refusal
        assert (refusal is not None and refusal.reason is Reason.NO_MODEL) == (kind == "Fe")
        assert (refusal is not None and refusal.reason is Reason.INTERNAL_ERROR) == (kind == "poison")


class FailsTogether(SeriesAlignment):
    """Fails on every batch of several frames, as if one of them could not be computed with."""

    def __call__(self, frames, model):
        if len(frames) > 1:
            raise FloatingPointError("a frame that spoils its batch")
        return super().__call__(frames, model)


def test_frames_of_a_batch_that_cannot_be_aligned_get_their_own_answers():
    frames = [frame(k, height=0.2 + 0.3 * k) for k in range(4)]
    align = FailsTogether(AlignmentSettings())
    answers = by_uid(FrameServer([WhiteLine()], align, EnergyUncertainty(every=3))(frames))
    expected = by_uid(FrameServer([WhiteLine()], SeriesAlignment(AlignmentSettings()), EnergyUncertainty())(frames))
    for uid, answer in answers.items():
        assert_same(answer, expected[uid], ("mean",))


def test_files_keep_their_order_if_one_has_no_time():
    frames = [frame(2), frame(1, start=-12.0), frame(0)]
    answers = by_uid(server()(frames, by_time=True))
    assert answers["1"].flags[-1] is Flag.BACKGROUND_HELD  # a long frame comes first in time too
    frames = [replace(frame(1, start=-12.0), time=np.nan), frame(0)]
    refusal = by_uid(server()(frames, by_time=True))["1"].refusal
    assert refusal is not None
    assert refusal.reason is Reason.NO_PRE_EDGE
    unknown = replace(frame(5, "Fe"), time=np.nan)  # has no model, and its time does not matter
    frames = [frame(1, start=-12.0), frame(0), unknown]
    assert by_uid(server()(frames, by_time=True))["1"].refusal is None


def test_model_flags_precede_alignment_flags():
    frames = [frame(0), frame(1, start=-12.0)]
    answer = by_uid(server()(frames))["1"]
    assert answer.flags == (Flag.OUT_OF_DISTRIBUTION, Flag.BACKGROUND_HELD)
    assert answer.estimate is not None
    assert answer.estimate.flags == answer.flags


def test_glitches_are_counted():
    spoiled = frame(0)
    spoiled.mu[[20, 200]] += 0.3
    answers = by_uid(server()([spoiled, frame(1)]))
    assert [a.quantities["glitches"] for a in answers.values()] == [2.0, 0.0]
    assert [Flag.GLITCHES_REPAIRED in a.flags for a in answers.values()] == [True, False]


def test_named_model_serves_every_frame():
    align = SeriesAlignment(AlignmentSettings())
    frames = [frame(0), frame(1, "Fe")]  # both at the same energies
    answers = by_uid(FrameServer([WhiteLine()], align, EnergyUncertainty(), named=True)(frames))
    assert [a.refusal for a in answers.values()] == [None, None]
    two = FrameServer([WhiteLine("Ni"), WhiteLine("Co")], align, EnergyUncertainty(), named=True)
    refusal = by_uid(two(frames))["1"].refusal
    assert refusal is not None
    assert refusal.reason is Reason.NO_MODEL


def test_alignment_does_not_call_the_model():
    model = WhiteLine()
    serve = FrameServer([model], SeriesAlignment(AlignmentSettings()), EnergyUncertainty())
    (answer,) = serve.aligned([frame(0, height=4.0)])
    assert answer.estimate is None
    assert answer.refusal is None
    assert answer.quantities["edge_step"] == pytest.approx(0.8, abs=0.1)
    assert model.batches == []


@pytest.mark.parametrize("max_batch", [1, 2, 256])
def test_model_calls_have_at_most_max_batch_frames(max_batch):
    model = WhiteLine()
    serve = FrameServer([model], SeriesAlignment(AlignmentSettings()), EnergyUncertainty(), max_batch=max_batch)
    assert len([*serve([frame(k) for k in range(5)])]) == 5
    assert sum(model.batches) == 5
    assert max(model.batches) == min(max_batch, 5)


def computed(number: int, points: int = 100) -> Frame:
    e = np.linspace(-4.0, 70.0, points)
    mu = (0.5 + np.arctan((e - 4) / 1.5) / np.pi) * (1 + 0.01 * number)
    return Frame(str(number), "rows", number, np.nan, EDGES["Ni"] + e, mu, element="Ni")


def test_computed_spectra_get_the_same_answers_in_any_order():
    model = WhiteLine()
    serve = FrameServer([model], TheoryAlignment(), None)
    frames = [computed(k, points=100 + k % 2) for k in range(6)]
    answers = by_uid(serve(frames))
    assert {a.quantities["energy_sd_ev"] for a in answers.values()} == {0.0}
    for f in frames:
        (alone,) = serve([f])
        assert_same(alone, answers[f.uid])
        estimate = answers[f.uid].estimate
        assert estimate is not None
        assert estimate.descriptors["OS"].lo == estimate.descriptors["OS"].mean  # exact energies add no width


def test_short_computed_row_is_refused():
    whole = computed(0)
    short = replace(whole, energy=whole.energy[:60], mu=whole.mu[:60])
    (answer,) = FrameServer([WhiteLine()], TheoryAlignment(), None)([short])
    assert answer.refusal is not None
    assert answer.refusal.reason is Reason.DOES_NOT_COVER_THE_GRID


@pytest.mark.parametrize(
    ("named", "reason"), [("Ni", Reason.DOES_NOT_COVER_THE_GRID), (None, Reason.NO_MODEL)], ids=["named", "unnamed"]
)
def test_energies_in_kev_under_the_unit_ev_are_hinted_at(named: str | None, reason: Reason):
    in_ev = frame(1)
    in_kev = replace(in_ev, energy=in_ev.energy / 1000, element=named)
    (answer,) = server()([in_kev])
    assert answer.refusal is not None
    assert answer.refusal.reason is reason
    assert answer.refusal.detail.endswith("; the energies look like keV, and their unit says eV")
    (answer,) = server()([replace(in_ev, energy=in_ev.energy / 2)])
    assert answer.refusal is not None
    assert "keV" not in answer.refusal.detail
