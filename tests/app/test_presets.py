"""Presets on recordings in the shape of their beamlines: the frames that come out against what went in."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapes
from shapes import Recording

from xas_agent.agent.fields import read_scan
from xas_agent.agent.types.frame import Document, Frame, SetAside
from xas_agent.app.config import ConfigError, load_config, presets

pytest.importorskip("h5py", reason="the recordings have HDF5 files: pip install 'xas-agent[formats]'")
pytest.importorskip("bluesky.consolidators", reason="StreamDatums are read through bluesky's consolidators")

BRAGG = {"kind": "bragg", "d_spacing_ang": 3.1356}


@pytest.fixture
def served(bench: Any) -> Any:
    """What the stages and the assembler make of documents."""

    def serve(documents: Sequence[Document], config: Any) -> tuple[list[Frame], list[SetAside]]:
        done = bench(config).feed(documents).wait(5.0)
        assert not done.waiting
        done.end()
        return done.frames, done.asides

    return serve


def check_exact(frames: Sequence[Frame], recording: Recording, scale: float = 1.0) -> None:
    """Frame by frame what went in, point by point; ``scale`` is what fluorescence may be off by as a whole."""
    assert len(frames) == len(recording.sweeps)
    for frame, true in zip(frames, recording.sweeps, strict=True):
        np.testing.assert_allclose(frame.energy, true.energy, rtol=0, atol=1e-5)
        np.testing.assert_allclose(frame.mu, true.mu * scale, rtol=1e-6)
        assert (frame.direction, frame.element, frame.edge) == (true.direction, "Co", "K")
        if true.reference is None:
            assert frame.reference is None
        else:
            assert frame.reference is not None
            np.testing.assert_allclose(frame.reference, true.reference, rtol=1e-6)


def check_binned(frames: Sequence[Frame], recording: Recording, within: float) -> None:
    """Frame by frame what went in where the axis was sampled densely: on the frame's own energies."""
    assert len(frames) == len(recording.sweeps)
    for frame, true in zip(frames, recording.sweeps, strict=True):
        assert (frame.direction, frame.element, frame.edge) == (true.direction, "Co", "K")
        assert abs(frame.energy[0] - true.energy[0]) < 1.0
        assert abs(frame.energy[-1] - true.energy[-1]) < 1.0
        assert 0.4 < np.median(np.diff(frame.energy)) < 0.6
        fine = shapes.sweep(frame.energy)
        assert np.abs(frame.mu - fine.mu).max() < within
        assert frame.reference is not None
        assert fine.reference is not None
        assert np.abs(frame.reference - fine.reference).max() < within


def late(documents: Sequence[Document], rng: random.Random) -> list[Document]:
    """Some documents a little later than they should be, one in ten twice; each start first and each stop last."""
    docs = [d for d in documents for _ in range(1 + (rng.random() < 0.1))]
    order = {"start": -100.0, "stop": 100.0}
    return [d for _, d in sorted(enumerate(docs), key=lambda kd: kd[0] + order.get(kd[1][0], rng.uniform(0, 8)))]


def test_every_preset_is_a_config() -> None:
    assert presets() == ["bmm", "diamond", "haven", "iss", "qas", "quick", "sst1"]
    for preset in presets():
        assert load_config(None, preset).preset == preset


@pytest.mark.parametrize(
    ("preset", "start"),
    [
        ("bmm", {"XDI": {"Sample": {"name": "NiO"}}}),
        ("iss", {"sample_uid": "NiO", "sample_name": "other"}),
        ("haven", {"sample_name": "NiO", "sample": "bar 3"}),
        ("sst1", {"sample_id": "NiO", "sample_name": "other"}),
        ("qas", {"sample_name": "NiO"}),
    ],
)
def test_presets_know_where_the_sample_is_named(preset: str, start: dict[str, Any]) -> None:
    assert read_scan({"uid": "run", **start}, load_config(None, preset).series).series == "NiO"


def test_a_config_lies_over_its_preset() -> None:
    config = load_config({"preset": "iss", "fields": {"bin_ev": 1.0}})
    assert (config.fields.bin_ev, config.fields.energy, config.fly is not None) == (1.0, "hhm_energy", True)
    assert load_config({"fields": {"bin_ev": 1.0}}, "iss").sha256 == config.sha256
    with pytest.raises(ConfigError, match=r"no preset 'bm'; the closest is bmm; the presets are bmm, diamond"):
        load_config({"preset": "bm"})


@pytest.mark.parametrize("mode", ["transmission", "fluorescence"])
@pytest.mark.parametrize("bothways", [False, True])
def test_bmm(served: Any, tmp_path: Path, mode: Any, bothways: bool) -> None:
    recording = shapes.bmm(tmp_path, mode, bothways=bothways)
    frames, asides = served(recording.documents, {"preset": "bmm"})
    assert not asides
    check_exact(frames, recording)


def test_bmm_reads_the_regions_of_the_absorber_whatever_their_number(served: Any, tmp_path: Path) -> None:
    recording = shapes.bmm(tmp_path, "fluorescence")
    documents = [
        (name, {**doc, "XDI": {**doc["XDI"], "_dtc": None}} if "XDI" in doc else doc)
        for name, doc in recording.documents
    ]
    check_exact(served(documents, {"preset": "bmm"})[0], recording)


@pytest.mark.parametrize(
    ("preset", "recording"),
    [
        ("bmm", lambda folder: shapes.bmm(folder, kind="333")),
        ("bmm", lambda folder: shapes.bmm(folder, kind="areascan")),
        ("iss", lambda folder: shapes.iss_step(folder, experiment="collect_n_exposures")),
        ("iss", lambda folder: shapes.pizza_boxes(folder, experiment="collect_n_exposures_fly_dark")),
        ("sst1", lambda folder: shapes.sst1(folder, scantype="calibration")),
    ],
)
def test_other_kinds_of_scan_are_no_frames_and_no_trouble(
    served: Any, tmp_path: Path, preset: str, recording: Any
) -> None:
    documents = recording(tmp_path).documents
    for _, doc in documents:
        if "plan_name" in doc and preset == "sst1":
            doc["plan_name"] = "count"
        if "plan_name" in doc and preset == "iss":
            doc["plan_name"] = "general_plan"
    assert served(documents, {"preset": preset}) == ([], [])


def test_haven_step(served: Any, tmp_path: Path) -> None:
    recording = shapes.haven_step(tmp_path)
    frames, asides = served(recording.documents, {"preset": "haven"})
    assert not asides
    check_exact(frames, recording)
    assert frames[0].readings == {"I0-clock-count": pytest.approx(1e6), "energy-id": 1.0}


def test_haven_fly(served: Any, tmp_path: Path) -> None:
    recording = shapes.haven_fly(tmp_path)
    frames, asides = served(recording.documents, {"preset": "haven"})
    assert not asides
    check_exact(frames, recording)
    assert frames[0].time == pytest.approx(recording.documents[0][1]["time"] + 1 + 32.9)


def test_sst1(served: Any, tmp_path: Path) -> None:
    recording = shapes.sst1(tmp_path)
    frames, asides = served(recording.documents, {"preset": "sst1"})
    assert not asides
    check_exact(frames, recording)


def test_quick(served: Any, tmp_path: Path) -> None:
    recording = shapes.quick(tmp_path)
    frames, asides = served(recording.documents, {"preset": "quick"})
    assert not asides
    check_binned(frames, recording, within=0.02)


def test_iss_step(served: Any, tmp_path: Path) -> None:
    recording = shapes.iss_step(tmp_path)
    frames, asides = served(recording.documents, {"preset": "iss"})
    assert not asides
    check_exact(frames, recording)


FLY = {
    "iss": {},
    "qas": {"stream": "apb_stream_c", "encoder": "pb1_enc1", "experiment": "fly_energy_scan_apb", "sweeps": 3},
}


@pytest.mark.parametrize("preset", FLY)
def test_pizza_boxes(served: Any, tmp_path: Path, preset: str) -> None:
    recording = shapes.pizza_boxes(tmp_path, **FLY[preset])
    frames, asides = served(recording.documents, {"preset": preset})
    assert not asides
    check_binned(frames, recording, within=0.02)
    begin = shapes.BEGIN_S + 10
    assert [f.time for f in frames] == pytest.approx([begin + k + 1 for k in range(len(frames))], abs=0.01)


def test_diamond(served: Any, tmp_path: Path) -> None:
    recording = shapes.diamond(tmp_path)
    config = {"preset": "diamond", "fields": {"element": "Co", "edge": "K", "relation": BRAGG}}
    frames, asides = served(recording.documents, config)
    assert not asides
    check_exact(frames, recording)


def test_positions_without_a_relation_are_refused_with_what_to_declare(served: Any, tmp_path: Path) -> None:
    frames, asides = served(shapes.diamond(tmp_path).documents, {"preset": "diamond"})
    assert not frames
    (aside,) = asides
    assert aside.reason == "no energy relation"
    assert "panda1-bragg is a position" in aside.detail
    assert "fields.relation: {kind: bragg" in aside.detail


DISORDERED = {
    "bmm": ("bmm", shapes.bmm, {}),
    "haven": ("haven", shapes.haven_step, {}),
    "haven fly": ("haven", shapes.haven_fly, {}),
    "diamond": ("diamond", shapes.diamond, {"element": "Co", "edge": "K", "relation": BRAGG}),
}


@pytest.mark.parametrize("which", DISORDERED)
@pytest.mark.parametrize("seed", range(3))
def test_late_and_repeated_documents_make_the_same_frames(served: Any, tmp_path: Path, which: str, seed: int) -> None:
    preset, make, fields = DISORDERED[which]
    recording = make(tmp_path)
    documents = late(recording.documents, random.Random(seed))
    frames, asides = served(documents, {"preset": preset, "fields": fields})
    assert not asides
    check_exact(sorted(frames, key=lambda f: f.time), recording)


@pytest.mark.parametrize("preset", FLY)
@pytest.mark.parametrize("seed", range(3))
def test_pizza_boxes_late_and_repeated(served: Any, tmp_path: Path, preset: str, seed: int) -> None:
    recording = shapes.pizza_boxes(tmp_path, **FLY[preset])
    frames, asides = served(late(recording.documents, random.Random(seed)), {"preset": preset})
    assert not asides
    check_binned(frames, recording, within=0.02)
