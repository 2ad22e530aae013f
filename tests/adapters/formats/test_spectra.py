from pathlib import Path

import measured
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xas_agent.adapters.formats import FileSpectrum, SpectrumFileError, flaw, read_spectra
from xas_agent.adapters.formats.spectrum import MIN_POINTS
from xas_agent.agent.types.reasons import Reason

E = np.array([8300.0, 8333.0, 8400.0])
MU = np.array([0.1, 0.9, 1.0])
COLUMNS = np.column_stack([E, [1e5, 9e4, 8e4], [5e4, 2e4, 1e4], [4e4, 1e4, 9e3]])


def text(tmp_path, header: str, table=COLUMNS, separator: str = " ", name: str = "scan.xdi") -> Path:
    rows = "\n".join(separator.join(map(repr, row)) for row in np.asarray(table).tolist())
    path = tmp_path / name
    path.write_text(f"{header}\n{rows}\n" if header else rows)
    return path


XDI = """# XDI/1.0 GSE/1.0
# Column.1: energy eV || 13BMA:E:Energy.VAL
# Column.2: i0
# Column.3: itrans
# Column.4: irefer
# Element.symbol: Ni
# Element.edge: K
# ///
# a comment: no field
# -------------
#   energy   i0   itrans  irefer"""


def test_xdi_in_transmission_with_a_reference(tmp_path):
    path = text(tmp_path, XDI)
    (spectrum,) = read_spectra(path)
    assert (spectrum.id, spectrum.source, spectrum.row) == ("scan.xdi:0", str(path), 0)
    assert (spectrum.element, spectrum.edge, spectrum.normalised) == ("Ni", "K", False)
    _, i0, it, ir = COLUMNS.T
    np.testing.assert_array_equal(spectrum.energy, E)
    np.testing.assert_allclose(spectrum.mu, np.log(i0 / it), rtol=1e-14)
    assert spectrum.reference is not None
    np.testing.assert_allclose(spectrum.reference, np.log(it / ir), rtol=1e-14)


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("", " "),
        ("", ","),
        ("", "\t"),
        ("energy, mu", ", "),
        ("# energy  mu", " "),
        ("# taken on a Monday\n# E(eV) mu(E)", "  "),
        ("% Energy\txmu", "\t"),
    ],
)
def test_two_columns_are_energy_and_mu(tmp_path, header, separator):
    (spectrum,) = read_spectra(text(tmp_path, header, np.column_stack([E, MU]), separator))
    np.testing.assert_array_equal(spectrum.energy, E)
    np.testing.assert_array_equal(spectrum.mu, MU)
    assert spectrum.reference is None
    assert spectrum.normalised is None


@pytest.mark.parametrize(
    ("header", "mu", "normalised"),
    [
        ("# shifted energy\tnormalized\treference\tI0", lambda a, b, c: a, True),
        ("# energy i0 itrans mutrans", lambda a, b, c: c, None),
        ("# energy i0 ifluor iother", lambda a, b, c: b / a, False),
        ("energy,I0,It,Iref", lambda a, b, c: np.log(a / b), False),
        ("# energy norm nbkg flat", lambda a, b, c: a, True),
    ],
)
def test_columns_are_known_by_their_names(tmp_path, header, mu, normalised):
    (spectrum,) = read_spectra(text(tmp_path, header))
    np.testing.assert_allclose(spectrum.mu, mu(*COLUMNS.T[1:]), rtol=1e-14)
    assert spectrum.normalised is normalised


def test_kev_become_ev(tmp_path):
    path = text(tmp_path, "# Column.1: energy keV\n# Column.2: mutrans", np.column_stack([E / 1000, MU]))
    np.testing.assert_allclose(read_spectra(path)[0].energy, E)


def test_falling_energies_are_turned(tmp_path):
    (spectrum,) = read_spectra(text(tmp_path, XDI, COLUMNS[::-1]))
    (rising,) = read_spectra(text(tmp_path, XDI, COLUMNS))
    np.testing.assert_array_equal(spectrum.energy, rising.energy)
    np.testing.assert_array_equal(spectrum.mu, rising.mu)
    np.testing.assert_array_equal(spectrum.reference, rising.reference)


def test_intensities_that_are_not_positive_give_nan(tmp_path):
    table = COLUMNS.copy()
    table[0, 1], table[1, 2] = 0.0, -1.0
    np.testing.assert_array_equal(np.isnan(read_spectra(text(tmp_path, XDI, table))[0].mu), [True, True, False])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(mu=st.lists(st.floats(allow_nan=True), min_size=3, max_size=3))
def test_numbers_are_read_exactly(tmp_path, mu):
    (spectrum,) = read_spectra(text(tmp_path, "# energy mu", np.column_stack([E, mu])))
    np.testing.assert_array_equal(spectrum.mu, mu)


def test_neighbouring_points_at_one_energy_are_averaged(tmp_path):
    table = np.repeat(COLUMNS, [1, 3, 2], axis=0)
    table[1:4, 3] *= [0.5, 1, 2]
    for rows in (table, table[::-1]):
        (spectrum,) = read_spectra(text(tmp_path, XDI, rows))
        _, i0, it, ir = COLUMNS.T
        np.testing.assert_array_equal(spectrum.energy, E)
        np.testing.assert_allclose(spectrum.mu, np.log(i0 / it), rtol=1e-14)
        assert spectrum.reference is not None
        np.testing.assert_allclose(spectrum.reference, np.log(it / ir), rtol=1e-14)


def npz(tmp_path, **arrays) -> Path:
    path = tmp_path / "spectra.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("energy", [E, np.stack([E, E + 1])])
def test_npz_of_several_rows(tmp_path, energy):
    path = npz(tmp_path, energy=energy, mu=np.stack([MU, 2 * MU]).astype(np.float32), id=["a", "b"])
    spectra = read_spectra(path)
    assert [(s.id, s.row, s.source) for s in spectra] == [("a", 0, str(path)), ("b", 1, str(path))]
    np.testing.assert_array_equal(spectra[1].energy, E + (energy.ndim - 1))
    np.testing.assert_allclose(spectra[1].mu, 2 * MU, rtol=1e-6)
    assert spectra[1].mu.dtype == np.float64


def test_npz_of_one_row_and_without_id(tmp_path):
    (spectrum,) = read_spectra(npz(tmp_path, energy=E, norm=MU, reference=[MU]))
    assert spectrum.id == "spectra.npz:0"
    assert spectrum.normalised is True
    np.testing.assert_array_equal(spectrum.reference, MU)


def test_ids_stored_as_bytes_are_decoded(tmp_path):
    path = npz(tmp_path, energy=E, mu=np.stack([MU] * 3), id=[b"mp-1692_000", "NiO μ".encode(), b"\xff"])
    assert [s.id for s in read_spectra(path)] == ["mp-1692_000", "NiO μ", "\ufffd"]


AXIS = np.linspace(8300.0, 8400.0, 21)


@pytest.mark.parametrize(
    ("point", "energy_ev", "mu", "found"),
    [
        (3, AXIS[3], 0.5, None),
        (3, np.nan, 0.5, "energy not finite: 1 of 21 values"),
        (20, np.inf, 0.5, "energy not finite: 1 of 21 values"),
        (3, AXIS[2], 0.5, "energy not monotonic: 8310.00 eV after 8310.00 eV, 1 of 21 points"),
        (3, 8400.0, 0.5, "energy not monotonic: 8320.00 eV after 8400.00 eV, 1 of 21 points"),
        (3, AXIS[3], np.nan, "NaN in data: 1 of 21 values"),
        (3, AXIS[3], np.inf, "NaN in data: 1 of 21 values"),
    ],
)
def test_a_row_with_a_flaw_is_read_and_told_of(tmp_path, point, energy_ev, mu, found):
    rows = np.stack([AXIS, AXIS]), np.zeros((2, 21))
    rows[0][1, point], rows[1][1, point] = energy_ev, mu
    for order in (1, -1):
        good, flawed = read_spectra(npz(tmp_path, energy=rows[0][:, ::order], mu=rows[1][:, ::order]))
        assert flaw(good) is None
        if order == 1 or found is None:
            assert str(flaw(flawed) or "").startswith(found or "")
        assert (flaw(flawed) is None) == (found is None)


def test_a_spectrum_of_few_points_has_a_flaw(tmp_path):
    found = flaw(read_spectra(text(tmp_path, XDI, np.repeat(COLUMNS, 5, axis=0)))[0])
    assert found == (Reason.TOO_FEW_POINTS, f"3 points, at least {MIN_POINTS} needed")


@given(values=st.lists(st.tuples(st.floats(), st.floats()), max_size=30))
def test_what_has_no_flaw_is_a_spectrum(values):
    energy, mu = np.array(values, dtype=float).reshape(-1, 2).T
    if flaw(FileSpectrum("a:0", "a", 0, energy, mu)) is None:
        assert np.isfinite(mu).all()
        assert (np.diff(energy) > 0).all()
        assert len(energy) >= MIN_POINTS


def test_a_damaged_npz_is_one_error(tmp_path):
    np.savez_compressed(tmp_path / "whole.npz", energy=AXIS, mu=np.random.default_rng(0).random((9, 21)))
    whole = (tmp_path / "whole.npz").read_bytes()
    path = tmp_path / "damaged.npz"

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=4))
    def read(damage):
        content = bytearray(whole)
        for place, byte in damage:
            content[place] = byte
        path.write_bytes(content)
        try:
            read_spectra(path)
        except SpectrumFileError as error:
            assert "damaged.npz" in str(error)  # noqa: PT017 - either outcome is right

    read()


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"x": E}, "found the arrays x"),
        ({"energy": E}, "found the arrays energy"),
        ({"energy": E[:2], "mu": MU}, "found energy of shape (2,)"),
        ({"energy": np.stack([E] * 3), "mu": np.stack([MU] * 2)}, "found energy of shape (3, 3)"),
        ({"energy": E, "mu": np.zeros((2, 2, 3))}, "found mu of float64, shape (2, 2, 3)"),
        ({"energy": E, "mu": MU.astype(str)}, "found mu of <U"),
        ({"energy": E, "mu": MU, "id": ["a", "b"]}, "found 2 id for 1 rows"),
        ({"energy": E, "mu": MU, "reference": MU[:2]}, "found reference of shape (2,)"),
        ({"energy": np.zeros(0), "mu": np.zeros((3, 0))}, "found mu of shape (3, 0)"),
        ({"energy": E, "mu": np.array([None, 1, 2])}, "allow_pickle"),
        ({"energy": E, "mu": np.array([1j, 0, 0])}, "found mu of complex128"),
        ({}, "found the arrays none"),
    ],
)
def test_npz_without_spectra_says_what_was_found(tmp_path, arrays, found):
    with pytest.raises(SpectrumFileError) as error:
        read_spectra(npz(tmp_path, **arrays))
    for part in ("spectra.npz", found, "expected energy (M,)"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("scan.txt", "", "found 0 rows of numbers"),
        ("scan.txt", "# energy mu\n", "found 0 rows of numbers"),
        ("notes.txt", "Dear all,\nthe beam is back.\n", "found 0 rows of numbers"),
        ("scan.txt", "1 2\n2 3\n3 oops\n", "line 3: found '3 oops', expected numbers"),
        ("scan.txt", "1 2\n2 3\n3\n", "line 3: found 1 values, expected 2"),
        ("scan.txt", "1 2 3\n2 3 4\n", "found 3 columns (unnamed)"),
        ("scan.txt", "# energy ring time\n1 2 3\n2 3 4\n", "found 3 columns (energy, ring, time)"),
        ("scan.txt", "# Column.1: angle degrees\n# Column.2: i0\n1 2\n2 3\n", "found 2 columns (angle, i0)"),
        ("scan.dat", "1 2\n\0\0", "found a binary file"),
        ("spectra.npz", "not a zip", "not an npz of numbers"),
        ("missing.txt", None, "No such file"),
        ("missing.npz", None, "No such file"),
        ("folder", ..., "found a folder"),
    ],
)
def test_a_file_without_spectra_says_what_was_found(tmp_path, name, content, found):
    path = tmp_path / name
    if content is ...:
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with pytest.raises(SpectrumFileError) as error:
        read_spectra(path)
    for part in (str(path), found, "expected"):
        assert part in str(error.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(content=st.binary(max_size=200) | st.text(alphabet="0123456789.,#eE- \n\tmuinf").map(str.encode))
def test_any_file_gives_spectra_or_one_error(tmp_path, content):
    for name in ("scan.txt", "scan.npz"):
        (tmp_path / name).write_bytes(content)
        try:
            for spectrum in read_spectra(tmp_path / name):
                assert spectrum.energy.shape == spectrum.mu.shape
        except SpectrumFileError as error:
            assert name in str(error)  # noqa: PT017 - either outcome is right


def test_files_as_beamlines_write_them(tmp_path):
    energy, mu = measured.cobalt()
    (counts,) = read_spectra(measured.write_xdi(tmp_path / "scan.xdi"))
    assert (counts.element, counts.edge, counts.normalised) == ("Co", "K", False)
    np.testing.assert_allclose(counts.mu, 0.3 + 0.8 * mu, atol=1e-9)
    assert counts.reference is not None
    np.testing.assert_allclose(counts.reference, mu, atol=1e-9)
    (normalised,) = read_spectra(measured.write_normalised(tmp_path / "norm_0001.txt"))
    assert normalised.normalised
    np.testing.assert_allclose(normalised.energy, energy, atol=1e-9)
    np.testing.assert_allclose(normalised.mu, mu, atol=1e-6)
    assert normalised.reference is not None
    np.testing.assert_allclose(normalised.reference, 1 + mu, atol=1e-6)
    series = read_spectra(measured.write_series(tmp_path / "spectra.npz", 12))
    assert len(series) == 12
    assert all(spectrum.normalised and spectrum.reference is not None for spectrum in series)


@pytest.mark.parametrize("name", ["co_k", "ni_k"])
def test_rows_of_feff_are_read(name):
    path = measured.FEFF / f"{name}.npz"
    with np.load(path) as archive:
        ids, energy, mu = (archive[key] for key in ("id", "energy", "mu"))
    spectra = read_spectra(path)
    assert [spectrum.id for spectrum in spectra] == ids.tolist()
    for spectrum, row_energy, row_mu in zip(spectra, energy, mu, strict=True):
        np.testing.assert_array_equal(spectrum.energy, row_energy)
        np.testing.assert_array_equal(spectrum.mu, row_mu)
