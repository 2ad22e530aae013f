"""The roles of columns, the units of energies, and the messages when a column cannot be identified."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xas_agent.adapters.formats import FileSpectrum, SpectrumFileError, read_spectra
from xas_agent.agent.types.xray import HC_EV_ANGSTROM

E = np.linspace(8300.0, 8400.0, 21)
I0 = np.linspace(1e5, 9e4, 21)
IT = np.linspace(5e4, 1e4, 21)
IF = np.linspace(10.0, 500.0, 21)
MU = np.log(I0 / IT)


def write(tmp_path, header: str, *columns, separator: str = " ", name: str = "scan.txt") -> Path:
    rows = (separator.join(map(repr, row)) for row in np.column_stack(columns).tolist())
    path = tmp_path / name
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def read(path, **columns) -> FileSpectrum:
    (spectrum,) = read_spectra(path, columns=columns or None)
    return spectrum


D = 3.13555
DEGREES = np.rad2deg(np.arcsin(HC_EV_ANGSTROM / (2 * D * E)))


@pytest.mark.parametrize(
    ("unit", "axis", "field", "note"),
    [
        ("energy eV", E, "", None),
        ("energy keV", E / 1000, "", None),
        ("energy (keV)", E / 1000, "", None),
        ("energy", E / 1000, "", "read as keV"),
        ("energy || 13IDA:E:Energy.VAL", E, "", None),
        ("angle degrees", DEGREES, f"# Mono.d_spacing: {D}\n", "energies are computed from the angles"),
        ("angle radians", np.deg2rad(DEGREES), f"# Mono.d_spacing: {D} Å\n", "energies are computed from the angles"),
    ],
)
def test_the_units_of_xdi(tmp_path, unit, axis, field, note):
    header = f"# XDI/1.0\n# Column.1: {unit}\n# Column.2: i0\n# Column.3: itrans\n{field}#---"
    found = read(write(tmp_path, header, axis, I0, IT))
    np.testing.assert_allclose(found.energy, E, rtol=1e-12)
    np.testing.assert_allclose(found.mu, MU, rtol=1e-12)
    assert bool(found.notes) == bool(note)
    assert (note or "") in " ".join(found.notes)


@pytest.mark.parametrize(
    ("unit", "field", "message"),
    [
        ("energy pixel", "", "in 'pixel', expected eV or keV"),
        ("angle degrees", "", "no Mono.d_spacing"),
        ("angle steps", "# Mono.d_spacing: 3.1\n", "in 'steps', expected degrees or radians"),
        ("angle degrees", "# Mono.d_spacing: unknown\n", "Mono.d_spacing 'unknown'"),
        ("angle degrees", "# Mono.d_spacing: 3.1\n", "outside 0 to 90 degrees"),
        ("k", "", "found 3 columns (k, i0, itrans)"),
    ],
)
def test_an_axis_that_cannot_be_converted_is_refused(tmp_path, unit, field, message):
    header = f"# XDI/1.0\n# Column.1: {unit}\n# Column.2: i0\n# Column.3: itrans\n{field}#---"
    with pytest.raises(SpectrumFileError) as error:
        read(write(tmp_path, header, E, I0, IT))
    assert message in str(error.value)
    assert "expected" in str(error.value) or "outside" in str(error.value)


@pytest.mark.parametrize("d_spacing", [str(D), f"{D} Å", f"{D / 10} nm", str(D).split(".")])
def test_a_given_d_spacing_converts_angles_without_a_unit(tmp_path, d_spacing):
    for name, columns in (("theta", {}), ("mono", {"energy": "mono"}), ("mono", {"energy": 1})):
        path = write(tmp_path, f"# {name} i0 itrans", DEGREES, I0, IT)
        spacing = ",".join(d_spacing) if isinstance(d_spacing, list) else d_spacing
        found = read(path, d_spacing=spacing, **columns)
        np.testing.assert_allclose(found.energy, E, atol=1e-6)
        assert any("read as degrees" in note for note in found.notes)
    energies = read(write(tmp_path, "# energy i0 itrans", E, I0, IT), d_spacing=str(D))
    np.testing.assert_array_equal(energies.energy, E)  # energies stay energies


@pytest.mark.parametrize("given", [{}, {"d_spacing": str(D)}])
def test_energies_in_kev_beside_a_d_spacing_are_no_angles(tmp_path, given):
    for header in (
        f"# Mono.d_spacing: {D}\n# energy i0 itrans",
        f"# XDI/1.0\n# Column.1: energy\n# Column.2: i0\n# Column.3: itrans\n# Mono.d_spacing: {D}\n#---",
    ):
        found = read(write(tmp_path, header, E / 1000, I0, IT), **given)
        np.testing.assert_allclose(found.energy, E)
        assert any("d_spacing is not used" in note for note in found.notes) == bool(given)


def test_a_d_spacing_for_a_format_without_angles_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", energy=E, mu=MU)
    with pytest.raises(SpectrumFileError, match="expected no d_spacing"):
        read(tmp_path / "a.npz", d_spacing=str(D))


def test_angles_are_never_read_as_energies_in_kev(tmp_path):
    path = write(tmp_path, "# theta i0 itrans", DEGREES, I0, IT)
    with pytest.raises(SpectrumFileError, match=r"--column d_spacing=3\.1356"):
        read(path, energy="theta")
    with pytest.raises(SpectrumFileError, match="expected a length in Å"):
        read(path, d_spacing="Si111")


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("# energy i0 it", " "),
        ("Energy;I0;It", ";"),
        ('"Energy (eV)","I0 (cts)","It (cts)"', ","),
        ("#C 1_E(eV) 2_I0 3_It", "  "),
        ("# 1) Mono Energy *  2) I0 *  3) It *\n# a line of words", " "),
        ("# Energy\tI0\tI1\n# ------------------", "\t"),
        ("XDAC V1.2\n-----\nEnergy  I0  It", "  "),
        ("% mono_energy   ion0   ion1", " "),
        ("# Element: Ni\n# Edge: K\n# Scan: fly\n# energy i0 it", " "),
    ],
)
def test_headers_of_many_beamlines(tmp_path, header, separator):
    found = read(write(tmp_path, header, E, I0, IT, separator=separator))
    np.testing.assert_array_equal(found.energy, E)
    np.testing.assert_allclose(found.mu, MU, rtol=1e-14)
    assert found.notes == ()
    assert found.element == ("Ni" if "Element" in header else None)


def test_a_unit_that_the_values_belie_is_reported(tmp_path):
    found = read(write(tmp_path, "# energy(eV) i0 it", E / 1000, I0, IT))
    np.testing.assert_array_equal(found.energy, E / 1000)
    assert found.notes == ("energies of 'energy' are read as eV, the unit in the file, but their values suggest keV",)


def test_a_unit_of_kev_that_the_values_belie_is_reported(tmp_path):
    found = read(write(tmp_path, "# energy(keV) mu", E, MU))
    np.testing.assert_allclose(found.energy, 1000 * E)
    assert "their values suggest eV" in found.notes[0]


def test_elements_of_a_detector_are_summed_and_told_of(tmp_path):
    found = read(write(tmp_path, "# energy i0 if_1 if_2 if_3", E, I0, IF, 2 * IF, 3 * IF))
    np.testing.assert_allclose(found.mu, 6 * IF / I0, rtol=1e-14)
    assert found.notes == ("fluorescence is the sum of if_1, if_2, if_3",)
    whole = read(write(tmp_path, "# energy i0 fluor fluor_1 fluor_2", E, I0, IF, IF / 2, IF / 2))
    np.testing.assert_allclose(whole.mu, IF / I0, rtol=1e-14)
    bmm = read(write(tmp_path, "# Element.symbol: Ni\n# Element.edge: K\n# energy i0 Ni1 Ni2", E, I0, IF, IF))
    np.testing.assert_allclose(bmm.mu, 2 * IF / I0, rtol=1e-14)


def test_transmission_goes_first_and_fluorescence_is_reported(tmp_path):
    path = write(tmp_path, "# energy i0 itrans ifluor", E, I0, IT, IF)
    found = read(path)
    assert found.formula == "transmission"
    assert found.notes == ("transmission is used; the file also contains fluorescence (--column if=ifluor)",)
    assert set(found.channels) == {"i0", "it", "fluorescence"}
    lit = read(path, **{"if": "ifluor"})
    np.testing.assert_allclose(lit.mu, IF / I0, rtol=1e-14)
    assert lit.formula == "fluorescence"


def test_the_caller_names_columns_by_name_or_number(tmp_path):
    path = write(tmp_path, "# a b c d", IF, E, I0, IT)
    for columns in ({"energy": "b", "i0": "c", "it": "D"}, {"energy": 2, "i0": "3", "it": 4}):
        found = read(path, **columns)
        np.testing.assert_array_equal(found.energy, E)
        np.testing.assert_allclose(found.mu, MU, rtol=1e-14)
    two = read(path, energy=2, i0=3, **{"if": [1, 4]})
    np.testing.assert_allclose(two.mu, (IF + IT) / I0, rtol=1e-14)
    same = read(path, energy=2, i0=3, fluorescence=[1, 4])
    np.testing.assert_array_equal(same.mu, two.mu)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"energy": "b", "i0": "x"}, "no column 'x' for i0; found the columns a, b, c, d"),
        ({"angle": "b"}, "no role 'angle'; expected one of energy, i0, it, iref (or ir), fluorescence (or if), mu, "),
        ({"energy": ["a", "b"]}, "2 columns for energy; expected one"),
        ({"energy": 9}, "no column 9 for energy"),
        ({"if": "a", "fluorescence": "d"}, "the role fluorescence twice, once as 'fluorescence'; expected one"),
        ({"energy": "b", "it": "d"}, "found 4 columns (a, b, c, d), expected columns energy and mu"),
    ],
)
def test_missing_columns_are_refused(tmp_path, columns, message):
    with pytest.raises(SpectrumFileError) as error:
        read(write(tmp_path, "# a b c d", IF, E, I0, IT), **columns)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        ("# energy mu xmu", (E, MU, MU), "of which mu and xmu may be mu"),
        ("# energy energy2 mu", (E, E, MU), None),
        ("# time i0 it", (E, I0, IT), "found 3 columns (time, i0, it)"),
        ("# theta intensity", (np.linspace(10, 14, 21), IF), "found 2 columns (theta, intensity)"),
        ("# mono time", (E, IF), "found 2 columns (mono, time)"),
        ("# k chi", (np.linspace(0, 15, 21), IF), "found 2 columns (k, chi)"),
        ("", (np.linspace(0, 15, 21), IF), "found 2 columns (unnamed)"),
        ("", (E, I0, IT), "name them (--column energy="),
        ("# a b c", (I0, IT, E), "found 3 columns (a, b, c)"),
    ],
)
def test_ambiguous_columns_are_refused_with_the_columns_to_name(tmp_path, header, columns, message):
    path = write(tmp_path, header, *columns)
    if message is None:
        assert read(path).notes == ()
        return
    with pytest.raises(SpectrumFileError) as error:
        read(path)
    assert message in str(error.value)


@pytest.mark.parametrize("columns", [(E, MU), (MU, E)])
def test_of_two_columns_the_one_that_is_not_energy_is_the_absorption(tmp_path, columns):
    found = read(write(tmp_path, "", *columns))
    np.testing.assert_array_equal(found.energy, E)
    np.testing.assert_array_equal(found.mu, MU)


def test_a_column_that_can_only_be_energy_is_taken_and_told_of(tmp_path):
    found = read(write(tmp_path, "# encoder i0 it", E / 1000, I0, IT))
    np.testing.assert_allclose(found.energy, E, rtol=1e-14)
    assert found.notes == ("column 1 (encoder) is read as energy in keV, because its values fit",)


@pytest.mark.parametrize("separator", ["\t", ";", " ", " ; "])
def test_decimal_commas(tmp_path, separator):
    path = tmp_path / "komma.txt"
    rows = (separator.join(f"{v:.6f}" for v in row).replace(".", ",") for row in np.column_stack([E, I0, IT]))
    path.write_text("# energy i0 it\n" + "\n".join(rows) + "\n")
    found = read(path)
    np.testing.assert_allclose(found.energy, E, rtol=1e-9)
    np.testing.assert_allclose(found.mu, MU, rtol=1e-7)
    assert found.notes == ("commas are read as decimal marks",)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1e300, 1e300), min_size=3, max_size=12),
    separator=st.sampled_from([",", ", ", ";", "; ", "\t", " ", " , "]),
    comma=st.booleans(),
)
def test_numbers_are_the_same_under_any_separator(tmp_path, values, separator, comma):
    comma = comma and "," not in separator
    rows = [separator.join((repr(8300.5 + i), repr(v))) for i, v in enumerate(values)]
    path = tmp_path / "numbers.txt"
    text = "\n".join(rows)
    path.write_text("# energy mu\n" + (text.replace(".", ",") if comma else text) + "\n")
    np.testing.assert_array_equal(read(path).mu, values)


@pytest.mark.parametrize(
    ("body", "energies"),
    [
        ("8300.0,,1.0\n8301.0,2.0,1.0\n8302.0,2.0,1.0\n", 3),
        ("8.3000D+03,2.0D0,1\n8.3010D+03,2.0,1\n", 2),
        ('"8300.0","2","1"\n"8301.0","2","1"\n', 2),
        ("21\n8300.0 2 1\n8301.0 2 1\n", 2),
        ("8300.0 2 1\n# paused\n\n8301.0 2 1\n# done\n", 2),
    ],
)
def test_tables_as_they_come(tmp_path, body, energies):
    path = tmp_path / "odd.csv"
    path.write_text("# energy i0 it\n" + body)
    found = read(path)
    np.testing.assert_array_equal(found.energy, 8300.0 + np.arange(energies))
    assert np.isnan(found.mu[0]) == (",," in body)
    assert any("numbers above the table" in note for note in found.notes) == body.startswith("21\n")


def test_a_last_line_without_its_end(tmp_path):
    path = tmp_path / "cut.txt"
    rows = [f"{e:.3f} {m:.6f}" for e, m in zip(E, MU, strict=True)]
    whole = "# energy mu\n" + "\n".join(rows)
    for lost, points, note in (
        (0, 21, "has no line break"),
        (1, 20, "ends within"),
        (9, 20, "ends within"),
    ):
        path.write_text(whole[: len(whole) - lost])
        found = read(path)
        assert len(found.energy) == points
        assert note in found.notes[0]
        assert found.complete == (points == 21)


def test_ssrl_says_what_it_did_not_subtract(tmp_path):
    path = tmp_path / "a.001"
    body = "\n".join(" ".join(map(repr, row)) for row in np.column_stack([E, E, I0, IT]).tolist())
    head = " SSRL - EXAFS Data Collector 1.1\n Fri Jul  7 18:22:57 1995\n PTS: 25 COLS: 4\n"
    path.write_text(
        f"{head} Offsets:\n 0.0 0.0 605.5 7.1\n Data:\n Requested energy\n Achieved energy\n I0\n I1\n\n{body}\n"
    )
    found = read(path)
    assert found.notes == (
        "the file ends early: 21 of 25 points",
        "the offsets in the header are not subtracted: 0.0 0.0 605.5 7.1",
    )
    assert not found.complete


@pytest.mark.parametrize("kind", ["npz", "h5", "txt"])
def test_roles_are_the_same_for_every_kind_of_file(tmp_path, kind):
    path = tmp_path / f"scan.{kind}"
    if kind == "npz":
        np.savez(path, energy=E, mu=MU, other=MU)
    elif kind == "h5":
        h5py = pytest.importorskip("h5py", reason="HDF5 needs the extra [formats]")
        with h5py.File(path, "w") as file:
            file["energy"], file["mu"], file["other"] = E, MU, MU
    else:
        write(tmp_path, "# energy mu other", E, MU, MU)
    with pytest.raises(SpectrumFileError, match="found no role 'angle'; expected one of energy"):
        read(path, energy="energy", mu="mu", angle="other")
    with pytest.raises(SpectrumFileError, match="found 2 columns for mu; expected one"):
        read(path, energy="energy", mu=["mu", "other"])


@pytest.mark.parametrize(
    ("line", "foil"),
    [
        ("# Sample.reference: none", False),
        ("# Element.reference: None", False),
        ("# Reference foil: no", False),
        ("# Detector.ir: none", False),
        ("# Sample.reference: Mn filter", False),
        ("# Detector.ir: Ar 15cm, Al filter", True),
        ("# Sample.reference: Ni foil", True),
        ("# Sample.temperature: none", True),
    ],
)
def test_a_column_is_no_foil_if_the_header_says_so(tmp_path, line, foil):
    path = write(tmp_path, f"{line}\n# energy i0 itrans irefer", E, I0, IT, IT / 2)
    found = read(path)
    assert (found.reference is not None) == ("iref" in found.channels) == foil
    assert any("not read as a foil" in note for note in found.notes) != foil
    np.testing.assert_allclose(found.mu, MU)
    assert read(path, iref="irefer").reference is not None  # the caller knows better
