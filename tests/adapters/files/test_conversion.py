"""Spectra of files as documents, and the frames that the agent makes of those."""

import json
from pathlib import Path

import measured
import numpy as np
import pytest
from streams import Frames
from valid import check_document

from xas_agent.adapters.files.batch import read_all
from xas_agent.adapters.files.conversion import RunComposer, convert
from xas_agent.adapters.files.documents import FileSource
from xas_agent.adapters.formats import FileSpectrum, SpectrumFileError, flaw, read_spectra
from xas_agent.agent.fields.settings import FieldSettings
from xas_agent.agent.types.frame import Frame, SetAside

E = np.linspace(8300.0, 8400.0, 41)
MU = 0.3 + 1 / (1 + np.exp(-(E - 8333.0)))
I0 = np.linspace(2e5, 1e5, 41)
COLUMNS = {"i0": I0, "itrans": I0 * np.exp(-MU), "irefer": I0 * np.exp(-2 * MU), "ifluor": I0 * MU, "murefer": 2 * MU}
COLUMNS |= {"mu": MU, "norm": MU - 0.3}


def table(folder: Path, *names: str, name="scan.xdi", energy=E, header="", points: int = len(E)) -> Path:
    columns = [energy, *(COLUMNS[name] for name in names)]
    rows = "\n".join(" ".join(map(repr, row)) for row in np.column_stack(columns)[:points].tolist())
    path = folder / name
    path.write_text(f"{header}# energy {' '.join(names)}\n{rows}\n")
    return path


def frames(path: Path) -> tuple[list[Frame], list[SetAside]]:
    assembler, found = Frames(FieldSettings()), []
    for name, doc in FileSource(path):
        found += assembler(name, doc)
    found += assembler.flush()
    return [f for f in found if isinstance(f, Frame)], [f for f in found if isinstance(f, SetAside)]


def same(frame: Frame, spectrum: FileSpectrum) -> None:
    np.testing.assert_array_equal(frame.energy, spectrum.energy)
    np.testing.assert_allclose(frame.mu, spectrum.mu, rtol=1e-12, atol=1e-12)
    assert (frame.reference is None) == (spectrum.reference is None)
    if frame.reference is not None and spectrum.reference is not None:
        np.testing.assert_allclose(frame.reference, spectrum.reference, rtol=1e-12, atol=1e-12)
    assert frame.normalised == bool(spectrum.normalised)
    assert (frame.element, frame.edge) == (spectrum.element, spectrum.edge)


@pytest.mark.parametrize(
    "names",
    [
        ("i0", "itrans"),
        ("i0", "itrans", "irefer"),
        ("i0", "itrans", "ifluor"),
        ("i0", "ifluor"),
        ("i0", "ifluor", "murefer"),
        ("mu",),
        ("mu", "i0", "itrans", "irefer"),
        ("norm", "murefer"),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".msgpack"])
@pytest.mark.parametrize("energy", [E, E[::-1], np.repeat(E[:21], 2)[:41]], ids=["rising", "falling", "repeated"])
def test_the_agent_makes_the_same_frame_of_it(tmp_path, names, suffix, energy):
    path = table(tmp_path, *names, energy=energy, header="# Element.symbol: Ni\n# Element.edge: K\n")
    (spectrum,) = read_spectra(path)
    convert(read_all([path]), tmp_path / f"run{suffix}")
    (frame,), aside = frames(tmp_path / f"run{suffix}")
    assert aside == []
    same(frame, spectrum)


@pytest.mark.parametrize("element", ["I", "In", "Ni"])
def test_intensities_are_not_taken_for_channels_named_after_the_element(tmp_path, element):
    path = table(tmp_path, "i0", "ifluor", header=f"# Element.symbol: {element}\n# Element.edge: K\n")
    convert(read_all([path]), tmp_path / "run.jsonl")
    (frame,), _ = frames(tmp_path / "run.jsonl")
    np.testing.assert_allclose(frame.mu, MU, rtol=1e-12)


def test_documents_are_valid_and_say_what_is_known(tmp_path):
    header = "# Element.symbol: {}\n# Element.edge: K\n# Sample.name: {}\n# Scan.start_time: 2022-07-27T18:4{}:00Z\n"
    files = [
        table(tmp_path, "i0", "itrans", name="a.xdi", header=header.format("Ni", "LNO", 0)),
        table(tmp_path, "i0", "itrans", name="b.xdi", header=header.format("Ni", "LNO", 1), points=40),
        table(tmp_path, "mu", name="c.xdi", header=header.format("Ni", "LNO", 2)),
        table(tmp_path, "i0", "itrans", name="d.xdi", header=header.format("Co", "LCO", 3)),
    ]
    done = convert(read_all(files), tmp_path / "run.jsonl")
    assert (done.files, done.spectra, done.runs, done.flaws, done.notes) == (4, 4, 3, [], [])
    documents = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    for name, doc in documents:
        check_document(name, doc)
    run = ["start", "descriptor", "event"]
    kinds = [*run, "descriptor", "event", "stop", *run, "stop", *run, "stop"]
    assert [name for name, _ in documents] == kinds
    starts = [doc for name, doc in documents if name == "start"]
    assert [(s["element"], s["edge"], s["sample_name"]) for s in starts] == [("Ni", "K", "LNO")] * 2 + [
        ("Co", "K", "LCO")
    ]
    events = [doc for name, doc in documents if name == "event"]
    assert [e["data"]["file"] for e in events] == ["a.xdi", "b.xdi", "c.xdi", "d.xdi"]
    assert [e["time"] - events[0]["time"] for e in events] == [0.0, 60.0, 120.0, 180.0]
    assert [e["seq_num"] for e in events[:2]] == [1, 2]
    stop = next(doc for name, doc in documents if name == "stop")
    assert (stop["exit_status"], stop["num_events"]) == ("success", {"primary": 2})
    found, aside = frames(tmp_path / "run.jsonl")
    assert [f.time for f in found] == [e["time"] for e in events]
    assert aside == []


def test_what_is_said_goes_over_what_the_files_say(tmp_path):
    files = [table(tmp_path, "mu", name=f"{n}.xdi", header=f"# Sample.name: {n}\n") for n in "ab"]
    done = convert(read_all(files), tmp_path / "run.jsonl", element="Ni", edge="K", sample="LNO")
    assert done.runs == 1
    assert [(f.element, f.edge) for f in frames(tmp_path / "run.jsonl")[0]] == [("Ni", "K")] * 2


def test_flaws_are_told_and_the_agent_sees_them(tmp_path):
    spoiled = COLUMNS["itrans"].copy()
    spoiled[3] = 0.0
    np.savez(tmp_path / "two.npz", energy=E, i0=I0, it=np.stack([COLUMNS["itrans"], spoiled]))
    done = convert(read_all([tmp_path / "two.npz"]), tmp_path / "run.jsonl")
    assert done.flaws == ["two.npz:1: NaN in data: 1 of 41 values; an intensity is missing or not positive"]
    found, aside = frames(tmp_path / "run.jsonl")
    assert len(found) == 1
    assert [a.reason for a in aside] == ["It not positive"]


def test_a_file_that_cannot_be_read_ends_the_run_as_aborted(tmp_path):
    good, bad = table(tmp_path, "mu"), tmp_path / "bad.txt"
    bad.write_text("no table\n")
    with pytest.raises(SpectrumFileError, match=r"bad\.txt"):
        convert(read_all([good, bad]), tmp_path / "run.jsonl")
    last = list(FileSource(tmp_path / "run.jsonl"))[-1]
    assert (last[0], last[1]["exit_status"]) == ("stop", "abort")


def test_nothing_taken_is_no_run():
    assert list(RunComposer().finish()) == []


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("scan.xdi", measured.write_xdi),
        ("norm_0001.txt", measured.write_normalised),
        ("spectra.npz", measured.write_series),
    ],
)
def test_files_as_beamlines_write_them_make_the_same_frames(tmp_path, name, write):
    path = write(tmp_path / name)
    spectra = read_spectra(path)
    done = convert(read_all([path]), tmp_path / "run.msgpack")
    assert (done.spectra, done.flaws) == (len(spectra), [])
    found, aside = frames(tmp_path / "run.msgpack")
    assert aside == []
    for frame, spectrum in zip(found, spectra, strict=True):
        assert flaw(spectrum) is None
        same(frame, spectrum)


def stray(energy: np.ndarray) -> np.ndarray:
    """Return energies of which one is wrong."""
    return np.where(np.arange(len(energy)) == 25, energy + 700, energy)


@pytest.mark.parametrize(
    ("path_of", "spectra"),
    [
        pytest.param(lambda e: np.tile(e, 3)[:41], 3, id="repeated sweeps"),
        pytest.param(lambda e: np.r_[e, e[::-1]][:41], 2, id="up and down"),
        pytest.param(lambda e: np.random.default_rng(0).permutation(np.r_[e, e])[:41], 0, id="random"),
        pytest.param(lambda _: stray(E), 0, id="one wrong energy"),
    ],
)
def test_files_and_streams_agree_on_what_is_a_sweep(tmp_path, path_of, spectra):
    axis = np.linspace(8300.0, 8400.0, 41 if spectra == 0 else 41 // spectra + 1)
    path = table(tmp_path, "i0", "itrans", energy=path_of(axis))
    in_file = [spectrum for spectrum in read_spectra(path) if flaw(spectrum) is None]
    assert len(in_file) == spectra
    whole = RunComposer()
    raw = FileSpectrum("raw", str(path), 0, path_of(axis), np.log(COLUMNS["i0"] / COLUMNS["itrans"]))
    assembler, found = Frames(FieldSettings()), []
    for name, doc in (*whole.add(raw), *whole.finish()):
        found += assembler(name, doc)
    found += assembler.flush()
    streamed = [frame for frame in found if isinstance(frame, Frame)]
    assert len(streamed) == spectra
    for frame, spectrum in zip(streamed, in_file, strict=True):
        np.testing.assert_array_equal(frame.energy, spectrum.energy)
        np.testing.assert_allclose(frame.mu, spectrum.mu, rtol=1e-12)
