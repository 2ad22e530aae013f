"""A file of each format, made here: whole, cut off anywhere, damaged, zipped, in other encodings."""

import gzip
import json
import os
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xas_agent.adapters.formats import FileSpectrum, SpectrumFileError, flaw, limits, read_spectra

h5py = pytest.importorskip("h5py", reason="HDF5 needs the extra [formats]")

RNG = np.random.default_rng(1)
E = np.round(8233.0 + np.cumsum(RNG.uniform(0.5, 4.0, 60)), 3)
I0 = np.round(RNG.uniform(1e5, 2e5, 60), 2)
MU = 0.4 + 1.0 / (1.0 + np.exp(-(E - 8333.0) / 1.5))
IT = np.round(I0 * np.exp(-MU), 3)
IR = np.round(IT * np.exp(-0.7 * MU), 3)
TRUTH = np.log(I0 / IT)
FOIL = np.log(IT / IR)


def rows(*columns, separator: str = "  ", form: str = "%.3f") -> str:
    return "".join(separator.join(form % value for value in row) + "\n" for row in zip(*columns, strict=True))


def xdi(unit: str = "eV", energy=E, extra: str = "") -> str:
    return (
        "# XDI/1.0 GSE/1.0\n"
        f"# Column.1: energy {unit}\n# Column.2: i0\n# Column.3: itrans\n# Column.4: irefer\n"
        "# Element.symbol: ni\n# Element.edge: K\n# Mono.d_spacing: 3.13555\n# Sample.name: NiO, a powder\n"
        f"# Scan.start_time: 2022-07-27T18:45:56Z\n{extra}# ///\n# Column.2: no field any more\n# ------------\n"
        "# energy i0 itrans irefer\n" + rows(energy, I0, IT, IR, form="%.7f")
    )


def write_xdi(folder: Path) -> Path:
    path = folder / "scan.xdi"
    path.write_text(xdi())
    return path


def write_table(folder: Path) -> Path:
    path = folder / "scan.dat"
    path.write_text(
        "# taken at night\n#  Energy (eV)\tI0 (A)\tIt (A)\tIr (A)\n" + rows(E, I0, IT, IR, separator="\t")
    )
    return path


def write_epics(folder: Path) -> Path:
    """GSECARS' scans before XDI."""
    path = folder / "gse.dat"
    legend = ("{Energy} --> {13IDA:E.VAL}", "{i0} --> {S2}", "{itrans} --> {S3}", "{irefer} --> {S4}")
    names = "".join(f"; {p}={text}\n" for p, text in zip(("P1", "D1", "D2", "D3"), legend, strict=True))
    path.write_text(f"; Epics Scan 1 dimensional scan\n;====\n; column labels:\n{names};----\n" + rows(E, I0, IT, IR))
    return path


def write_ssrl(folder: Path) -> Path:
    path = folder / "scan_A.001"
    clock = np.linspace(1, 10, len(E))
    path.write_text(
        f" SSRL  EXAFS Data Collector 2.0      \n Fri Jul  7 18:22:57 1995\n PTS: {len(E)} COLS: 6\n"
        " a comment\n\n Weights: \n 1.0 1.0 1.0 1.0 1.0 1.0\n Offsets: \n 0.0 0.0 0.0 0.0 0.0 0.0\n Data: \n"
        " Real time clock   \n Requested energy  \n Achieved energy   \n I0 \n I1 \n I2 \n\n"
        + rows(clock, E - 0.01, E, I0, IT, IR)
    )
    return path


def ssrl_binary(vax: bool) -> bytes:
    def text(line: str, size: int) -> bytes:
        return line.ljust(size - 2)[: size - 2].encode() + b"\n\0"

    head = text(f"SSRL - EXAFS Data Collector {1.1 if vax else 2.0}", 40) + text("Fri Jul  7 18:22:57 1995", 40)
    head += text(f"PTS: {len(E)} COLS: 6", 40) + text("det", 40) * 2 + text("mirror", 80) + text("4", 40)
    head += text("comment", 80) * 6 + struct.pack("<12f", *[0.0] * 6, *[1.0] * 6)
    for name in ("Real time clock", "Requested energy", "Achieved energy", "I0", "I1", "I2"):
        head += text(name, 20)
    table = np.column_stack([np.linspace(1, 10, len(E)), E - 0.01, E, I0, IT, IR]).astype("<f4")
    if vax:
        table = (table * 4).view("<u2").reshape(-1, 2)[:, ::-1]
    return head + struct.pack("<i12x", len(E)) + table.tobytes()


def write_ssrl_binary(folder: Path) -> Path:
    path = folder / "scan.001"
    path.write_bytes(ssrl_binary(vax=False))
    return path


def write_ssrl_vax(folder: Path) -> Path:
    path = folder / "old.001"
    path.write_bytes(ssrl_binary(vax=True))
    return path


def write_spec(folder: Path) -> Path:
    path = folder / "run.spec"
    head = "#F run.spec\n#E 1658947556\n#D Wed Jul 27 18:45:56 2022\n#O0 Energy  th\n\n"
    motor = "#S 1  ascan th 0 1 2 1\n#D Wed Jul 27 18:46:00 2022\n#N 2\n#L th  Monitor\n0 1\n0.5 2\n1 3\n\n"
    energy = (
        "#S {}  Escan 8.2 8.4\n#D Wed Jul 27 18:50:00 2022\n#N 4\n#L Energy  Seconds Left  I0  It\n"
        + rows(E / 1000, np.ones(60), I0, IT, separator=" ", form="%.6f")
        + "#C done\n\n"
    )
    path.write_text(head + motor + energy.format(2) + energy.format(3) + energy.format(3))
    return path


ARGS = {
    "bkg_e0": "8333.1",
    "bkg_pre1": "-120",
    "bkg_nor2": "300",
    "bkg_eshift": "0.5",
    "bkg_z": "Ni",
    "fft_edge": "k",
}
GROUPS = [
    ("abcde", {"label": "NiO's scan", "reference": "fghij", "is_xmu": "1", **ARGS}, E - 0.5, TRUTH),
    ("fghij", {"label": "  Ref NiO", "reference": "abcde", "is_xmu": "1", **ARGS}, E - 0.5, FOIL),
    ("chiii", {"label": "chi", "is_chi": "1"}, np.arange(20.0), np.zeros(20)),
]


def perl(value) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(perl, value)) + "]"
    return "'" + str(value).replace("\\", r"\\").replace("'", r"\'") + "'"


def write_athena(folder: Path) -> Path:
    text = "# Athena project file -- Demeter version 0.9.26\n# This file created at 2022-07-27T18:45:56\n\n"
    for key, args, x, y in GROUPS:
        pairs = [item for pair in {"titles": ["a;\nb", "c"], **args, "empty": []}.items() for item in pair]
        text += f"$old_group = '{key}';\n@args = ({','.join(map(perl, pairs))});\n"
        for name, array in (("x", x), ("y", y), ("i0", np.ones(len(x)))):
            text += f"@{name} = ({','.join(perl(float(v)) for v in array)});\n"
        text += "[record]   # create object and set arrays in ifeffit\n\n"
    path = folder / "athena.prj"
    path.write_bytes(gzip.compress((text + "@journal = ();\n\n1;\n\n# End:\n").encode(), mtime=0))
    return path


def write_athena_json(folder: Path) -> Path:
    content = {"_____header1": "# Athena project file -- Demeter version 0.9.26", "_____journal": ["a"]}
    for key, args, x, y in GROUPS:
        content[key] = {"args": args, "x": [str(v) for v in x.tolist()], "y": y.tolist()}
    content["_____order"] = [key for key, *_ in GROUPS]
    path = folder / "athena_json.prj"
    path.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))
    return path


def write_nxxas(folder: Path) -> Path:
    path = folder / "xas.nxs"
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["definition"], entry["title"], entry["start_time"] = "NXxas", "a scan", "2022-07-27T18:45:56Z"
        mono = entry.create_group("instrument/monochromator")
        mono.attrs["NX_class"] = "NXmonochromator"
        mono["energy"] = E / 1000
        mono["energy"].attrs["units"] = "keV"
        entry["instrument/incoming_beam/data"], entry["instrument/absorbed_beam/data"] = I0, IT
        entry["data/mode"] = "Transmission"
        sample = entry.create_group("sample")
        sample.attrs["NX_class"], sample["name"] = "NXsample", "NiO"
        entry["element"], entry["edge"] = "Ni", "K"
    return path


def write_npz(folder: Path) -> Path:
    path = folder / "many.npz"
    np.savez_compressed(path, energy=E, mu=np.stack([TRUTH, 2 * TRUTH]), reference=FOIL)
    return path


Writer = Callable[[Path], Path]
TEXTS: list[Writer] = [write_xdi, write_table, write_epics, write_ssrl, write_spec]
PROJECTS: list[Writer] = [write_athena, write_athena_json]
BINARY: list[Writer] = [write_ssrl_binary, write_ssrl_vax, write_nxxas, write_npz]
ALL = [*TEXTS, *PROJECTS, *BINARY]
each = pytest.mark.parametrize("write", ALL, ids=lambda write: write.__name__)


@each
def test_what_was_written_is_read(write, tmp_path):
    found = read_spectra(write(tmp_path))
    near = 1e-6 if write in (write_ssrl_binary, write_ssrl_vax) else 1e-12
    for spectrum in found[:1]:
        np.testing.assert_allclose(spectrum.energy, E, rtol=near)
        np.testing.assert_allclose(spectrum.mu, TRUTH, rtol=10 * near, atol=10 * near)
        assert flaw(spectrum) is None
        assert spectrum.complete
        if write in (write_xdi, write_table, write_epics, write_ssrl, *PROJECTS, write_npz):
            assert spectrum.reference is not None
            np.testing.assert_allclose(spectrum.reference, FOIL, rtol=1e-12)
    named = {s.element for s in found if write in (write_xdi, write_nxxas, *PROJECTS)}
    assert named <= {"Ni"}
    dated = {write_xdi: 1658947556.0, write_nxxas: 1658947556.0}
    assert found[0].time == dated.get(write, found[0].time)
    assert (found[0].time is None) == (write in (write_table, write_epics, write_npz, *PROJECTS))


def test_a_spectrum_per_scan_of_a_spec_file(tmp_path):
    found = read_spectra(write_spec(tmp_path))
    assert [s.id for s in found] == ["run.spec:2", "run.spec:3", "run.spec:3.2"]
    assert found[0].title == "2 Escan 8.2 8.4"
    assert [note for s in found for note in s.notes if "1 of 4 scans are left out" in note and "th, monitor" in note]
    assert any("read as keV" in note for note in found[0].notes)


@pytest.mark.parametrize("write", PROJECTS, ids=lambda write: write.__name__)
def test_a_spectrum_per_group_of_an_athena_project(write, tmp_path):
    scan, foil = read_spectra(write(tmp_path))
    assert (scan.title, scan.element, scan.edge) == ("NiO's scan", "Ni", "K")
    assert scan.parameters == {"e0": 8333.1, "pre1": -120.0, "norm2": 300.0, "eshift": 0.5}
    assert foil.reference is None
    np.testing.assert_allclose(foil.mu, FOIL, rtol=1e-12)
    assert any("1 of 3 groups are left out: chi (χ(k))" in note for note in scan.notes)
    assert any("are shifted by 0.5 eV" in note for note in scan.notes)


def _same_as_far_as_it_goes(cut: FileSpectrum, whole: FileSpectrum) -> bool:
    """Whether all points except the last equal those of the whole file, and a note mentions a different last one."""
    count = len(cut.energy)
    same = np.array_equal(cut.energy[: count - 1], whole.energy[: count - 1])
    same &= np.array_equal(cut.mu[: count - 1], whole.mu[: count - 1], equal_nan=True)
    last = cut.energy[-1] == whole.energy[count - 1] and cut.mu[-1] == whole.mu[count - 1]
    return bool(same) and (bool(last) or any("has no line break" in note for note in cut.notes))


@each
def test_a_file_cut_off_is_refused_or_told_of(write, tmp_path):
    path = write(tmp_path)
    content, whole = path.read_bytes(), {s.id: s for s in read_spectra(path)}
    read = 0
    lengths = {*np.linspace(0, len(content) - 1, 150).astype(int).tolist(), *range(len(content) - 30, len(content))}
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        try:
            found = read_spectra(path)
        except SpectrumFileError as error:
            assert path.name in str(error)  # noqa: PT017 - either outcome is right
            continue
        read += len(found)
        for spectrum in found:
            assert _same_as_far_as_it_goes(spectrum, whole[spectrum.id]), (length, spectrum.notes)
            shorter = len(spectrum.energy) < len(whole[spectrum.id].energy)
            if shorter and content[length - 1 : length] != b"\n":
                reported = not spectrum.complete or any("last line" in note for note in spectrum.notes)
                assert reported, (length, spectrum.notes)
    assert read > 0 or write in (write_npz, write_nxxas)


@each
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_gives_spectra_or_one_error(write, tmp_path, data):
    path = write(tmp_path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(content) - 1))
        content[begin : begin + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=8))
    path.write_bytes(content)
    try:
        for spectrum in read_spectra(path):
            assert spectrum.energy.shape == spectrum.mu.shape
            flaw(spectrum)
    except SpectrumFileError as error:
        assert path.name in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("write", TEXTS, ids=lambda write: write.__name__)
@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "gzip", "crlf", "cr"]
)
def test_encodings_and_line_ends_make_no_difference(write, encoding, tmp_path):
    path = write(tmp_path)
    before, text = read_spectra(path), path.read_text()
    if encoding == "gzip":
        path.write_bytes(gzip.compress(text.encode()))
    elif encoding in ("crlf", "cr"):
        path.write_bytes(text.replace("\n", "\r\n" if encoding == "crlf" else "\r").encode())
    else:
        path.write_bytes(text.replace("a comment", "à Grenoble, 20 °C").encode(encoding))
    for spectrum, expected in zip(read_spectra(path), before, strict=True):
        np.testing.assert_array_equal(spectrum.mu, expected.mu)
        np.testing.assert_array_equal(spectrum.energy, expected.energy)
        assert (spectrum.id, spectrum.element, spectrum.time) == (expected.id, expected.element, expected.time)


def test_a_zip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_BYTES", 1 << 20)
    bomb = tmp_path / "bomb.prj"
    packed = zlib.compressobj(wbits=31)
    bomb.write_bytes(packed.compress(b"# Athena project file -- \n" + bytes(1 << 24)) + packed.flush())
    assert bomb.stat().st_size < 1 << 16
    with pytest.raises(SpectrumFileError, match="more than 1 MiB after decompression"):
        read_spectra(bomb)
    big = tmp_path / "big.txt"
    big.write_bytes(b"1 2\n" * (1 << 19))
    with pytest.raises(SpectrumFileError, match="found 2 MiB, expected at most 1 MiB"):
        read_spectra(big)


def test_rubbish_is_one_error(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.txt", "a.prj", "a.h5", "a.npz", "a.spec", "a.001"):
        for head in (
            b"",
            b"\x1f\x8b\x08",
            b"\x89HDF\r\n\x1a\n",
            b"PK\x03\x04",
            b"#S 1 x\n",
            b"SSRL - EXAFS Data Collector 2.0",
        ):
            (tmp_path / name).write_bytes(head + rng.bytes(3000))
            with pytest.raises(SpectrumFileError, match=name):
                read_spectra(tmp_path / name)


@pytest.mark.slow
def test_a_million_lines_are_read(tmp_path):
    energy = np.linspace(8000.0, 9000.0, 1_000_000)
    path = tmp_path / "long.txt"
    whole = "".join(f"{e:.4f},1.5\n" for e in energy.tolist())
    path.write_text("energy,mu\n" + whole)
    (spectrum,) = read_spectra(path)
    np.testing.assert_allclose(spectrum.energy, np.unique(np.round(energy, 4)), rtol=1e-12)
    path.write_text("energy,mu\n" + whole + "8000.0,x\n")
    with pytest.raises(SpectrumFileError, match=r"line 1000002: found '8000.0,x', expected numbers"):
        read_spectra(path)


def test_a_file_of_too_many_lines_is_refused(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"1\n" * 10_000_001)
    with pytest.raises(SpectrumFileError, match="found 10000001 lines, expected at most 10000000"):
        read_spectra(path)


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.xdi")
    with pytest.raises(SpectrumFileError, match="found a pipe or device"):
        read_spectra(tmp_path / "pipe.xdi")


def test_every_line_of_words_is_no_table(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("the beam is back\n" * 300_000)
    with pytest.raises(SpectrumFileError, match="found 0 rows of numbers"):
        read_spectra(path)


def test_energies_of_the_examples_are_no_accident():
    assert all(b > a for a, b in pairwise(E))
