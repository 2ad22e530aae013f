"""Files as beamlines write them: their headings, their signs and their flaws."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xas_agent.adapters.files import frame_of
from xas_agent.adapters.formats import FileSpectrum, SpectrumFileError, flaw, read_spectra
from xas_agent.agent.fields import FieldSettings
from xas_agent.agent.types import Frame
from xas_agent.agent.types.xray import HC_EV_ANGSTROM

E = np.linspace(8200.0, 8500.0, 61)
MU = 0.4 + 1 / (1 + np.exp(-(E - 8340.0) / 2))
I0 = np.linspace(2e5, 1.9e5, 61)
IT = I0 * np.exp(-MU)
D = 3.13551
DEGREES = np.rad2deg(np.arcsin(HC_EV_ANGSTROM / (2 * D * E)))


def write(path: Path, header: str, *columns: np.ndarray | list[str], separator: str = " ") -> Path:
    rows = (separator.join(map(str, row)) for row in zip(*columns, strict=True))
    path.write_text("\n".join([*([header] if header else []), *rows, ""]), encoding="utf-8")
    return path


def read(path: Path, **columns: str) -> FileSpectrum:
    (spectrum,) = read_spectra(path, columns=columns or None)
    return spectrum


def agrees(found: FileSpectrum, rtol: float = 1e-9) -> bool:
    assert flaw(found) is None
    np.testing.assert_allclose(found.energy, E, rtol=rtol)
    np.testing.assert_allclose(found.mu, MU, rtol=1e-4)
    return True


@pytest.mark.parametrize(
    "header",
    [
        "# created by LabVIEW Control Panel\n# Column Headings:\n#Mono Energy *   Scaler preset time * I0     I1",
        "# list of columns:\n#  1) Mono Energy (alt) *     2) Scaler preset time *\n#  3) I0     4) IT\n#",
        "# list of columns:\n#  1) Mono Energy *           3) I0\n#  2) Scaler preset time *    4) IT\n#",
        "# Energy(readback) time I0 I1",
    ],
)
def test_the_headings_of_labview_panels(tmp_path, header):
    assert agrees(read(write(tmp_path / "a.0001", header, E, np.ones(61), I0, IT)))


@pytest.mark.parametrize(
    ("header", "separator", "index"),
    [
        (",energy,i0,itrans", ",", range(61)),
        ("\tenergy\ti0\titrans", "\t", range(5, 66)),
        (";energy;i0;itrans", ";", range(7, 68)),
        ('"","energy","i0","itrans"', ",", range(1, 62)),
        ("   energy    i0   itrans", "   ", range(61)),
        (",energy,i0,itrans", ",", [f"2024-05-01 10:00:{k % 60:02d}" for k in range(61)]),
        (";energy;i0;itrans", ";", range(61)),
    ],
)
def test_the_index_that_pandas_and_r_write(tmp_path, header, separator, index):
    assert agrees(read(write(tmp_path / "a.csv", header, list(map(str, index)), E, I0, IT, separator=separator)))


@pytest.mark.parametrize("label", ["μ(E)", "µt", "xμ", "xµ(E)", "μ"])
def test_greek_letters_in_labels(tmp_path, label):
    path = write(tmp_path / "a.txt", f"Energy (eV)\t{label}\tI0", E, MU, I0, separator="\t")
    assert agrees(read(path))
    assert read(path).formula == "mu"


@pytest.mark.parametrize("header", ["# energy intensity", "   Energy    <xanes>", "# e a.u.", "energy,signal"])
def test_the_only_column_beside_the_energies_is_the_absorption(tmp_path, header):
    found = read(write(tmp_path / "a.txt", header, E, MU, separator="," if "," in header else " "))
    assert agrees(found)
    assert "column 2 is read as the absorption" in found.notes


@pytest.mark.parametrize("header", ["# energy i0", "# energy time", "# energy irefer"])
def test_a_column_of_another_name_is_no_absorption(tmp_path, header):
    with pytest.raises(SpectrumFileError, match="found 2 columns"):
        read(write(tmp_path / "a.txt", header, E, MU))


@pytest.mark.parametrize(
    ("text", "angstrom"),
    [("3,13551", D), ("3.13551 Å", D), ("0.313551 nm", D), ("3.13551 (Si 111)", D), ("3,13551 A", D)],
)
def test_a_d_spacing_as_people_write_it(tmp_path, text, angstrom):
    header = f"# XDI/1.0\n# Column.1: angle degrees\n# Column.2: mutrans\n# Mono.d_spacing: {text}\n#---"
    found = read(write(tmp_path / "a.xdi", header, DEGREES, MU))
    assert agrees(found)
    assert f"{angstrom} Å" in found.notes[0]


@given(st.text("0123456789.,eE+-OxA ", min_size=1, max_size=12))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_d_spacing_is_never_read_in_part(tmp_path, text):
    header = f"# XDI/1.0\n# Column.1: angle degrees\n# Column.2: mutrans\n# Mono.d_spacing: {text}\n#---"
    path = write(tmp_path / "a.xdi", header, DEGREES, MU)
    try:
        spacing = float(text.strip().rstrip("A").strip().replace(",", "."))
    except ValueError:
        with pytest.raises(SpectrumFileError):
            read(path)
        return
    with suppress(SpectrumFileError):  # a number beyond the spacings of crystals
        np.testing.assert_allclose(read(path).energy, E * D / spacing, rtol=1e-6)


@pytest.mark.parametrize("bad", ["STRING", "1.4.9", "0,4x"])
@pytest.mark.parametrize("row", [0, 1, 30, 60])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_value_that_is_no_number_is_refused_wherever_it_is(tmp_path, bad, row, column):
    columns = [list(map(str, c)) for c in (E, I0, IT)]
    columns[column][row] = bad
    with pytest.raises(SpectrumFileError, match=f"line {row + 2}: found .*expected numbers"):
        read(write(tmp_path / "a.txt", "# energy i0 itrans", *columns))


@pytest.mark.parametrize("separator", [" ", ",", "\t"])
def test_a_column_of_dates_is_left_out(tmp_path, separator):
    dates = [f"2024-05-01T10:00:{k % 60:02d}" for k in range(61)]
    header = separator.join(("energy", "when", "i0", "itrans"))
    found = read(write(tmp_path / "a.txt", header, E, dates, I0, IT, separator=separator))
    assert agrees(found)
    assert "column 2 contains no numbers and is left out" in found.notes[0]


PF = """  9809     KEK-PF   BL9A
 sample           24.05.11 17:26 - 24.05.11 17:58
 Mono :   SI(111)       D=  {d} A    Initial angle= 13.93250 deg
 BL9A      Transmission( 2)   Repetition=  1     Points=  {points}
 Block      Init-Eng  Final-Eng      Step/eV     Time/s       Num
     1        8200.00   8300.00         5.00       1.00        20
     2        8300.00   8400.00         5.00       1.00        20
     3        8400.00   8500.00         5.00       2.00        21
 Ortec( 0)     NDCH = 3
  Angle(c)  Angle(o)    time/s         1         2
      Mode         0         0         {first}         {second}
    Offset         0         0         0         0"""


def test_format_9809_of_photon_factory(tmp_path):
    shifted = DEGREES + 0.5
    path = write(
        tmp_path / "a.dat", PF.format(d=D, points=61, first=1, second=2), shifted, DEGREES, np.ones(61), I0, IT
    )
    assert agrees(read(path))
    assert agrees(read(path, energy="2", i0="4", it="5"))
    swapped = PF.format(d=D, points=70, first=3, second=1)
    found = read(write(tmp_path / "b.dat", swapped, shifted, DEGREES, np.ones(61), I0 * MU, I0))
    assert agrees(found)
    assert (found.formula, found.complete) == ("fluorescence", False)
    assert not any("blocks" in note for note in found.notes)
    damaged = PF.format(d="3.93555", points=61, first=1, second=2)
    found = read(write(tmp_path / "d.dat", damaged, shifted, DEGREES, np.ones(61), I0, IT))
    assert any("but the header's blocks reach from 8200.0 to 8500.0 eV" in note for note in found.notes)
    with pytest.raises(SpectrumFileError, match=r"d_spacing '3\.1\.3 A'"):
        read(
            write(tmp_path / "c.dat", PF.format(d="3.1.3", points=61, first=1, second=2), DEGREES, DEGREES, E, I0, IT)
        )


@pytest.mark.parametrize("names", [("Ni_Ka_mca1", "Ni_Ka_mca2"), ("Ni Ka 1", "Ni Ka 2"), ("NiKa_ch1", "NiKa_ch2")])
@pytest.mark.parametrize("element", ["# Element.symbol: Ni\n", ""])
def test_fluorescence_named_after_the_line(tmp_path, names, element):
    labels = "".join(f"# Column.{k}: {name}\n" for k, name in enumerate(("energy", "i0", *names, "Ni_Kb_mca1"), 1))
    header = f"# XDI/1.0\n{element}{labels.replace('Ni Ka ', 'Ni-Ka-')}#---"
    found = read(write(tmp_path / "a.001", header, E, I0, I0 * MU / 4, I0 * MU * 3 / 4, I0))
    assert agrees(found)
    both = write(tmp_path / "b.001", header.replace("Ni_Kb_mca1", "I1"), E, I0, I0 * MU, I0 * MU, I0)
    assert "the file also contains fluorescence (--column if=" in " ".join(read(both).notes)


@pytest.mark.parametrize("negative", [{"i0", "it", "iref"}, {"i0"}, {"it"}])
def test_negative_currents_are_good_data(tmp_path, negative):
    columns = {"i0": I0, "it": IT, "iref": IT * np.exp(-MU)}
    signed = [-1e-9 * c if role in negative else 1e-9 * c for role, c in columns.items()]
    found = read(write(tmp_path / "a.dat", "# energy i0 itrans irefer", E, *signed))
    assert agrees(found)
    assert found.reference is not None
    np.testing.assert_allclose(found.reference, MU, rtol=1e-6)
    assert isinstance(frame_of(found, 1, FieldSettings()), Frame)
    assert "read with the opposite sign" in found.notes[-1]


def test_energies_out_of_order_are_sorted_if_they_are_one_sweep(tmp_path):
    order = np.arange(61)
    order[[20, 21]] = 21, 20
    overlap = np.concatenate([E[:30], E[28:]]), np.concatenate([MU[:30], MU[28:]])
    rng = np.random.default_rng(1)
    jitter = np.linspace(8200, 8500, 1001) + rng.normal(0, 0.2, 1001)
    for energy, mu in ((E[order], MU[order]), overlap, (jitter, np.interp(jitter, E, MU))):
        for step in (1, -1):
            found = read(write(tmp_path / "a.txt", "# energy mu", energy[::step], mu[::step]))
            assert flaw(found) is None
            np.testing.assert_allclose(found.mu, np.interp(found.energy, E, MU), atol=1e-9)
            assert "out of order" in found.notes[-1]


@pytest.mark.parametrize("back", [1, -1])
def test_two_sweeps_in_a_file_are_two_spectra(tmp_path, back):
    energy, mu = np.r_[E, E[::back]], np.r_[MU, MU[::back]]
    np.savez(tmp_path / "a.npz", energy=energy, mu=np.stack([mu, mu]), id=["x", "y"])
    rows = read_spectra(tmp_path / "a.npz")
    assert [(s.id, s.row) for s in rows] == [("x#1", 0), ("x#2", 1), ("y#1", 2), ("y#2", 3)]
    columns = read_spectra(write(tmp_path / "a.txt", "# energy mu", energy, mu))
    assert [(s.id, s.row) for s in columns] == [("a.txt:0#1", 0), ("a.txt:0#2", 1)]
    for found in (*rows, *columns):
        assert flaw(found) is None
        assert found.notes[-1] == "the energy turns 1 time: read as 2 spectra"
        np.testing.assert_allclose(found.mu, np.interp(found.energy, E, MU), atol=1e-9)


def test_energies_in_random_order_or_one_wrong_energy_are_no_sweeps(tmp_path):
    stray = E.copy()
    stray[40] += 700.0
    for energy in (np.random.default_rng(2).permutation(E), stray, stray[::-1]):
        (found,) = read_spectra(write(tmp_path / "a.txt", "# energy mu", energy, MU))
        assert "energy not monotonic" in str(flaw(found))


def test_padding_at_the_end_is_left_out(tmp_path):
    found = read(write(tmp_path / "a.txt", "# energy mu", np.r_[E, np.zeros(5)], np.r_[MU, np.zeros(5)]))
    assert flaw(found) is None
    assert found.notes[-1] == "5 rows of padding at the end, with the energy 0, are left out"


GROUP = (
    "$old_group = '{}';\n@args = ('label','{}','is_xmu','1','bkg_eshift','{}');\n@x = ({});\n@y = ({});\n{}[record]\n"
)


def project(path: Path, *groups: str) -> Path:
    path.write_text("# Athena project file -- Demeter version 0.9.26\n" + "".join(groups))
    return path


def group(key: str, *, shift: str = "0", y: str | None = None, more: str = "") -> str:
    return GROUP.format(key, key, shift, ",".join(map(str, E)), y or ",".join(map(str, MU)), more)


def test_a_group_that_stands_twice_is_two_spectra(tmp_path):
    found = read_spectra(project(tmp_path / "a.prj", group("ni"), group("ni"), group("co")))
    assert [spectrum.id for spectrum in found] == ["a.prj:ni", "a.prj:ni.2", "a.prj:co"]
    assert all(map(agrees, found))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (group("bad", y="undef").replace("(undef)", "undef"), "y cannot be read"),
        (group("bad", y="'1','2x'"), "y cannot be read"),
        (group("bad", shift="3,2"), "found bkg_eshift '3,2', expected a number"),
        (group("bad").replace("'is_xmu','1'", "'is_xmu'"), "args cannot be read"),
    ],
)
def test_a_group_that_cannot_be_read_leaves_the_others(tmp_path, bad, why):
    first, second = read_spectra(project(tmp_path / "a.prj", group("ni"), bad, group("co", more="@i0 = undef;\n")))
    assert agrees(first)
    assert agrees(second)
    assert why in first.notes[0]
    assert "array i0 of this group is left out" in second.notes[-1]


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("        Energy            I0             I", (E, I0, IT)),
        (
            "DETECTORSI0      I       If\nGAINS           8       7      10\nOFFSETS     51284   50016   48319",
            (E, I0, IT, IT),
        ),
        ("#  1) Mono Energy *  3) I0-32\n#  2) Scaler preset time *  4) It-32\n#", (E, E * 0 + 1, I0, IT)),
        ("# energy     log(i0/it)   log(it/ir)  i0", (E, MU, -MU, I0)),
        ("#eBraggEnergy I0_EH1 I1_EH1 mu I1_EH2", (E, I0, IT, MU, IT)),
        ('#(1)\t"Event-ID"\t"Energy Setting"\t"$(EnergyAchieved)"\t"I0"\t"I1"', (E * 0 + 1, E + 0.4, E, I0, IT)),
    ],
)
def test_headings_of_more_beamlines(tmp_path, header, columns):
    assert agrees(read(write(tmp_path / "a.dat", header, *columns)))


def test_a_logarithm_of_ratios_is_no_current(tmp_path):
    found = read(write(tmp_path / "a.dat", "# energy log(i0/it) log(it/ir)", E, MU - 2, 0.5 * MU))
    np.testing.assert_allclose(found.mu, MU - 2)
    assert found.reference is not None
    np.testing.assert_allclose(found.reference, 0.5 * MU)
    assert found.notes == ()


def test_element_and_edge_of_gsecars(tmp_path):
    header = "# ScanParameters.element: Ni\n# ScanParameters.edge: K\n# energy i0 i1 Ni_Ka_mca1 Fe_Ka_mca1"
    found = read(write(tmp_path / "a.001", header, E, I0, IT, IT, IT))
    assert (found.element, found.edge) == ("Ni", "K")
    assert any("--column if=Ni_Ka_mca1)" in note for note in found.notes)


def test_the_end_mark_of_dos_is_no_row(tmp_path):
    path = write(tmp_path / "a.dat", "# energy i0 itrans", E, I0, IT)
    path.write_text(path.read_text() + "\x1a\n")
    assert agrees(read(path))


@pytest.mark.parametrize(("dark", "formula"), [(1, "transmission"), (30, "fluorescence"), (61, "fluorescence")])
def test_fluorescence_is_used_where_no_beam_is_transmitted(tmp_path, dark, formula):
    it = IT.copy()
    it[:dark] = 0
    found = read(write(tmp_path / "a.dat", "# energy i0 i1 if", E, I0, it, MU * I0))
    assert found.formula == formula
    assert any(note.startswith(f"{formula} is used") for note in found.notes)


def test_a_further_column_of_absorption_is_named(tmp_path):
    found = read(write(tmp_path / "a.xdi", "# energy mufluor mutrans", E, 2 * MU, MU))
    assert agrees(found)
    assert found.notes == ("'mutrans' is used; the file also contains mufluor (--column mu=mufluor)",)


@pytest.mark.parametrize(
    ("header", "axis", "found"),
    [
        ("# Au      Au", E / 3000, "found 2 columns"),  # lengths in Å, of the size of energies in keV
        (" &SRS\n SRSRUN=55322,SRSDAT=080713,\n &END", E, "found a file of Daresbury's SRS"),
    ],
)
def test_what_is_no_spectrum_over_energy_is_refused_with_its_reason(tmp_path, header, axis, found):
    with pytest.raises(SpectrumFileError, match=found):
        read(write(tmp_path / "a.dat", header, axis, MU))


def test_the_micro_collector_of_ssrl(tmp_path):
    rows = "\n".join(f"1.0 {e} {a} {b}" for e, a, b in zip(E, I0, IT, strict=True))
    path = tmp_path / "a.001"
    path.write_text(
        f"SSRL   MicroEXAFS Data Collector 1.0 \nSat Aug 09 11:58:07 2008\nPTS:\t61\tCOLS:\t4\n\n"
        f"Weights:\n 1 1 1 1\nOffsets:\n 0 0 0 0\nData:\nReal Time Clock\nRequested Energy\nI0\nI1\n\n{rows}\n"
    )
    assert agrees(read(path))
